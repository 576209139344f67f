"""The checked experiment, its plan, and what all rules share."""

import atexit
import gc
import sys

from pathlib import Path
from tempfile import gettempdir

from minillm_lab.experiment.config import RESERVED, load_experiment
from minillm_lab.experiment.for_others import command
from minillm_lab.experiment.libraries import FORMS, library_of
from minillm_lab.experiment.plan import MODELS_FIRST, OWN_CHUNKS, Plan, conda_file, due
from minillm_lab.experiment.recipe_files import Recipes
from minillm_lab.experiment.reference import published_at
from minillm_lab.experiment.sources import LABEL, MATRIX, NAME, RECIPE, type_of
from minillm_lab.jobs import lock, time_left
from minillm_lab.jobs.errors import LabError
from minillm_lab.jobs.graph import failures, jobs_due
from minillm_lab.jobs.staleness import code, code_by_runtime
from minillm_lab.report import CHARTS, PAGES, charts_of, page
from minillm_lab.report.after import after_failures, after_success, every_result
from minillm_lab.runtimes import check_installed, runtime_build, runtime_module

LOCK = lock.hold(Path(".snakemake")) if workflow.is_main_process else None  # not on a node

if workflow.is_main_process:
    atexit.register(
        time_left.tell_plan,
        lambda: jobs_due(workflow) if workflow.dryrun else [],
        lambda: 60 * RECIPES.minutes,
    )

try:
    EXPERIMENT = load_experiment(config, ", ".join(map(str, workflow.configfiles)))
    check_installed({variant.engine for variant in EXPERIMENT.variants.values()})
except LabError as error:
    sys.exit(f"error: {error}")

# A plan's objects live on: to look for garbage less often takes a fifth off (docs/scaling.md).
gc.freeze()
gc.set_threshold(100_000)

# Where nobody asks for the memory and time of jobs, they are not evaluated for each, nor is the folder
# of temporary files: that takes a seventh off a dry run.
asked = workflow.resource_settings
PLAN = Plan(EXPERIMENT, LAB, asks=bool({*asked.resources} - {"_cores", "_nodes"} or asked.nodes))
if not PLAN.asks and asked.default_resources is None:
    asked.default_resources = {"tmpdir": gettempdir()}
RECIPES = Recipes(PLAN)
RESULTS = EXPERIMENT.results
RUNTIMES = {name: runtime_module(name) for name in PLAN.runtimes}
ALL_CORES = 1024  # as a job's threads: Snakemake scales it down to every core it has
# `watched COMMAND` is for jobs that load a model or download one: such a job does not outlive snakemake,
# and what killed one is said (docs/reliability.md).
shell.prefix('watched() {{ exec python -m minillm_lab.jobs.watcher $PPID "$@"; }}; ')


def page_edits():
    """A file that changes when the page does not show the results."""
    if not EXPERIMENT.readme:
        return []
    folder = Path(".snakemake/minillm-lab/page")
    return page.edits(Path(EXPERIMENT.readme), Path(RESULTS), folder, workflow.is_main_process)


def experiment_command():
    """The command that makes these results."""
    return command(workflow.configfiles, workflow.config_settings.config)
