"""The checked experiment, and the names of files that follow from it."""

import gc
import itertools
import json
import shlex
import shutil
import sys

from functools import cache
from pathlib import Path
from types import SimpleNamespace

from minillm_lab import cluster, lock
from minillm_lab.errors import LabError
from minillm_lab.config import NAME, RESERVED, load_experiment, turn
from minillm_lab.failures import failures
from minillm_lab.files import sha256_of
from minillm_lab.staleness import code_file, stamp
from minillm_lab.report import FIGURES, PAGES, page
from minillm_lab.report.inert import without_folders
from minillm_lab.runtimes import runtime_build, runtime_versions

LOCK = lock.hold(Path(".snakemake")) if workflow.is_main_process else None  # not on a node
shell.prefix("exec python -m minillm_lab.job $PPID ")

try:
    EXPERIMENT = load_experiment(config, ", ".join(map(str, workflow.configfiles)))
except LabError as error:
    sys.exit(f"error: {error}")

# The plan of thousands of jobs is objects that all live on: looking for garbage among them less
# often takes a fifth off a dry run (docs/scaling.md).
gc.freeze()
gc.set_threshold(100_000)

RESULTS = EXPERIMENT.results
QUALITY_FILES = ("text", "questions")
BASELINE = SimpleNamespace(variant=EXPERIMENT.baseline, keys=lambda: ["variant"])
PAIRS = 30  # of slices, against llama-bench
CAPTIONS = {page: "interactive" if page == "figures" else page for page in PAGES}
REFERENCE_RUNTIME = "runtimes.transformers"
if EXPERIMENT.quality and EXPERIMENT.reference:
    REFERENCE_RUNTIME = f"runtimes.{EXPERIMENT.reference.runtime.replace('.', '_')}"


@cache
def code(*modules):
    """A file that changes with the code that a job runs: a module, and all that it imports."""
    return code_file(Path(".snakemake/minillm-lab/code"), *modules)


def source(wildcards):
    """Where the model comes from, as JSON."""
    return EXPERIMENT.provenance(model(wildcards))


def local_files(wildcards):
    """The files of a model that lies on this machine."""
    return EXPERIMENT.local_files(model(wildcards))


def page_edits():
    """A file that changes when the page does not show the results."""
    if not EXPERIMENT.readme:
        return []
    folder = Path(".snakemake/minillm-lab/page")
    return page.edits(Path(EXPERIMENT.readme), Path(RESULTS), folder, workflow.is_main_process)


@cache
def stamps(model):
    """What tells the local files of a model from others in their place; empty where it has none."""
    return [f"{file} {stamp(file)}" for file in EXPERIMENT.local_files(model)]


def origin(wildcards, path):
    """What was fetched for a file of the model, and which local files that was."""
    return [EXPERIMENT.origin(model(wildcards), str(path)), *stamps(model(wildcards))]


def known(name, names, what):
    """A name that a file asked for holds, if there is such a variant or model; else one line."""
    if name in names:
        return name
    listed = ", ".join(itertools.islice(names, 30)) + (", …" if len(names) > 30 else "")
    sys.exit(f"error: no {what} {name!r} in this experiment; there are: {listed}")


def variant(wildcards):
    """The variant of a job."""
    return known(wildcards.variant, EXPERIMENT.variants, "variant")


def model(wildcards):
    """The model of a job: named itself, or through its variant."""
    if "model" in wildcards.keys():
        return known(wildcards.model, EXPERIMENT.models, "model")
    return EXPERIMENT.model_name(variant(wildcards))


def weights(wildcards):
    """The model file or folder that a variant runs."""
    return EXPERIMENT.weights(model(wildcards), EXPERIMENT.form(variant(wildcards)))


def runtime(wildcards):
    """The name of a variant's runtime."""
    return EXPERIMENT.variants[variant(wildcards)].runtime


def runtime_module(wildcards):
    """The module of a variant's runtime."""
    return f"runtimes.{runtime(wildcards).replace('.', '_')}"


def trial_environment(wildcards):
    """The environment in which both sides of a trial run."""
    both = {runtime(wildcards), runtime(BASELINE)}  # llama.cpp's environment holds the other too
    return "llama.cpp" if "llama.cpp" in both else "transformers"


@cache
def trial_settings(variant):
    """How a side of a trial computes, as JSON; the baseline's is asked for by every trial."""
    return EXPERIMENT.trial_settings(variant)


def due(number, kind, variant):
    """The priority of a round or trial: after everything that makes models, in its turn."""
    return 1500000 - turn(int(number), kind, variant)


def reading_model(tokens=lambda wildcards, input: (0, 0), models=1):
    """What a job asks of a cluster whose first inputs are models; ``tokens``: in batches, singly."""
    return {
        "mem_mb": lambda wildcards, input, attempt: cluster.megabytes(input[:models], attempt),
        "runtime": lambda wildcards, input, attempt: cluster.minutes(
            input[:models], *tokens(wildcards, input), attempt
        ),
    }


def on_node(tokens, models=1):
    """The same for a job that runs on the kind of node that its variant names."""
    names = {
        "account": "slurm_account",
        "partition": "slurm_partition",
        "constraint": "constraint",
        "gpus": "gpu",
    }
    used = {key for node in EXPERIMENT.nodes.values() for key, value in node if value}
    return {**reading_model(tokens, models), **{names[key]: of_node(key) for key in sorted(used)}}


def of_node(key):
    return lambda wildcards: getattr(EXPERIMENT.node(wildcards.variant), key)


def tokens_of_round(wildcards, input):
    return EXPERIMENT.tokens(wildcards.variant)


def tokens_of_trial(wildcards, input):
    """Of each side: three attempts of four blocks, each two prompts and an answer."""
    prompts, single = EXPERIMENT.tokens(wildcards.variant)
    return 24 * prompts, 12 * single


def tokens_of_peer(wildcards, input):
    """Of the lab's slices and llama-bench's: three prompts of 256, two answers of 64, a loading."""
    return 2 * PAIRS * 3 * 256, 2 * PAIRS * (2 * 64 + 2)


def tokens_of_text(wildcards, input):
    return cluster.tokens_in(input.text), 0


def scores(wildcards, what):
    """A variant's score, or its reference's answer, where quality is measured."""
    if EXPERIMENT.quality is None or (what == "answer" and EXPERIMENT.reference is None):
        return []
    if what == "answer":
        return f"{RESULTS}/quality/answers/{model(wildcards)}.json"
    return f"{RESULTS}/quality/{wildcards.variant}.json"


def reference_file(wildcards):
    """The reference of a variant's model: made here, or a file made elsewhere."""
    shared = EXPERIMENT.quality.reference
    if EXPERIMENT.reference is None:
        return needed_file("reference", shared.file.replace("{model}", model(wildcards)))
    return f"{RESULTS}/quality/reference.{model(wildcards)}.npz"


def reference_weights(wildcards):
    """The model file or folder that the reference is computed from."""
    return EXPERIMENT.weights(model(wildcards), EXPERIMENT.reference_form)


def quality_file(what):
    """The evaluation text or the questions: the lab's own, another file, or none."""
    path = getattr(EXPERIMENT.quality, what)
    own = {"text": "text.txt", "questions": "questions.yaml"}
    if path == "own":
        return f"{LAB}/minillm_lab/quality/{own[what]}"
    return needed_file(what, path) if path else []


def quality_stamps():
    """The checksums of a text and questions of one's own, whatever their dates."""
    paths = {quality_file(what) or "": getattr(EXPERIMENT.quality, what) for what in QUALITY_FILES}
    return [
        f"{path} {sha256_of(Path(path))}"
        for path, said in paths.items()
        if said not in ("own", None)
    ]


def sections_file():
    """What the parts of the evaluation text are, from a file beside it; nothing without one."""
    text = quality_file("text")
    beside = os.path.splitext(text)[0] + ".sections.yaml"
    return beside if os.path.exists(beside) else []


def needed_file(what, path):
    """A file that the config names, if it is there; else one line, before anything runs."""
    if os.path.isfile(path):
        return path
    sys.exit(f"error: quality.{what}: {path}: there is no such file")


def peer_program(wildcards):
    """llama-bench, if the config names it; else one line."""
    if EXPERIMENT.llama_bench is None:
        sys.exit("error: llama_bench is not set in the config, so no speed is held against its")
    return shutil.which(EXPERIMENT.llama_bench) or EXPERIMENT.llama_bench


def converter(wildcards):
    """llama.cpp's converter, for a model that ships safetensors."""
    if EXPERIMENT.models[model(wildcards)].ships_safetensors:
        return f"models/.converter/{runtime_versions('llama.cpp')['llama-cpp-python']}"
    return []


def reference_answers():
    """What the reference of each model answered, where there is one."""
    if EXPERIMENT.quality is None or EXPERIMENT.reference is None:
        return []
    models = dict.fromkeys(map(EXPERIMENT.model_name, EXPERIMENT.variants))
    return expand(f"{RESULTS}/quality/answers/{{model}}.json", model=models)


def experiment_command():
    """The command that makes these results, as a reader would type it: no folder of this machine."""
    here = Path.cwd()
    paths = [Path(file) for file in workflow.configfiles]
    files = [str(path.relative_to(here) if path.is_relative_to(here) else path) for path in paths]
    named = [] if files == ["config.yaml"] else ["--configfile", *files]
    changed = [f"{key}={value}" for key, value in workflow.config_settings.config.items()]
    command = ["snakemake", "--cores", "1", *named, *(["--config", *changed] if changed else [])]
    return shlex.join(map(without_folders, command))


def table_after_failures():
    """The command that makes a table without the variants that failed; empty where none did."""
    every = {variant: f"{RESULTS}/{variant}.json" for variant in EXPERIMENT.variants}
    reasons = failures(workflow.dag, workflow.scheduler.failed, every)
    if not reasons or not any(job.rule.name == "compare" for job in workflow.dag.jobs):
        return ""
    page = ["--page", EXPERIMENT.readme] if EXPERIMENT.readme else []
    made = [f"--{kind}={RESULTS}/comparison.{kind}" for kind in ("json", "csv")]
    return shlex.join(
        [
            *("python", "-m", "minillm_lab.report.failed", "--results", *every.values()),
            *("--failed", json.dumps(reasons), "--baseline", EXPERIMENT.baseline),
            *("--experiment-command", experiment_command(), *page, *made),
            *("--markdown", f"{RESULTS}/comparison.md", "--log", f"{RESULTS}/logs/failed.log"),
        ]
    )
