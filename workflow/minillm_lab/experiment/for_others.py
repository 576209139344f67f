"""What others may see of an experiment: its command and its messages, without folders from here."""

import re
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from minillm_lab.experiment.config import Experiment
from minillm_lab.experiment.reference import ReferenceFile
from minillm_lab.wording import without_folders


def command(configfiles: Iterable[str | Path], changed: dict[str, Any]) -> str:
    """The command that makes an experiment's results, as a reader would type it."""
    here = Path.cwd()
    paths = [Path(file) for file in configfiles]
    files = [str(p.relative_to(here) if p.is_relative_to(here) else named(p)) for p in paths]
    given = [] if files == ["config.yaml"] else ["--configfile", *files]
    config = [f"{k}={v if k == 'prompt' else named(v)}" for k, v in changed.items()]
    return shlex.join(
        ["snakemake", "--cores", "1", *given, *(["--config", *config] if config else [])]
    )


def named(value: Any) -> Any:
    """A value of the config for others: of an absolute path its last part alone."""
    if isinstance(value, dict):
        return {key: named(inner) for key, inner in value.items()}
    if not isinstance(value, str | Path):
        return value
    path = str(value).removeprefix("file://").rstrip("/")
    return path.rpartition("/")[2] if path.startswith(("/", "~")) and "/" in path else str(value)


def shareable(experiment: Experiment, text: str) -> str:
    """Text without the folders of this machine that the experiment names or runs in."""
    quality = experiment.quality
    paths = [model.path for model in experiment.models.values()]
    paths += [quality.text, quality.questions] if quality else []
    references = map(experiment.reference_of, experiment.models)
    paths += [found.file for found in references if isinstance(found, ReferenceFile)]
    settings = experiment.variants.values()
    paths += [one.imatrix for one in settings if one.runtime == "llama.cpp"]
    folders = {Path(path).parent for path in paths if path}
    known = [(str(Path.cwd()), ""), *((str(f), "/-/") for f in folders if f.is_absolute())]
    for folder, instead in sorted(known, key=lambda pair: -len(pair[0])):
        text = re.sub(rf"(?<![\w.~/-]){re.escape(folder)}/+", instead, text)
    return without_folders(text)
