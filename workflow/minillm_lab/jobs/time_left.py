"""How long a run takes, by the time that such jobs took in this folder before.

Each job that loads, makes or downloads a model notes its seconds. Another round or trial of a
variant takes as long as its last; a variant without one, as long as the others.
"""

import json
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import fmean

FOLDER = Path(".snakemake/minillm-lab")
TIMES, RUN = FOLDER / "times.jsonl", FOLDER / "run.json"
SHORT = 1.5  # seconds of a job that notes none
WEIGHTS = {"rounds": 1.0, "trials": 1.0, "quality": 3.0, "answers": 1.0, "texts": 0.2}  # of a job


def note(output: str, seconds: float) -> None:
    """Note how long the job took that made ``output``."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with TIMES.open("a", encoding="utf-8") as file:
        file.write(json.dumps([output, round(seconds, 2)]) + "\n")


def noted() -> dict[str, float]:
    """The last seconds of each kind of job, by ``kind``."""
    try:
        lines = TIMES.read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    found = dict[str, float]()
    for line in lines:
        try:
            output, seconds = json.loads(line)
            found[kind(output)] = float(seconds)
        except (ValueError, TypeError):
            continue  # a line that a killed job left
    return found


def kind(output: str) -> str:
    """An output without the number of its round or trial: ``results/trials/q8_0``."""
    return re.sub(r"(\.\d+)?\.json$", "", output)


def forecast(outputs: Iterable[str], search: float | None = None) -> float | None:
    """Seconds that the jobs with these first outputs take, about; None where nothing tells.

    ``search``: seconds of a search for recipes, where it is known what it is given.
    """
    times = noted()
    by_folder = dict[str, list[float]]()
    for name, seconds in times.items():
        by_folder.setdefault(str(Path(name).parent), []).append(seconds)
    means = {folder: fmean(each) for folder, each in by_folder.items()}
    weighed = dict[str, list[float]]()  # by experiment: those of others run other models
    for folder, mean in means.items():
        if weight := WEIGHTS.get(Path(folder).name):
            weighed.setdefault(results_of(folder), []).append(mean / weight)
    total = 0.0
    for output in outputs:
        place = str(Path(output).parent)
        given = search if Path(output).name.startswith("sensitivity") else None
        known = times.get(kind(output), means.get(place) if given is None else given)
        if known is None and (weight := WEIGHTS.get(Path(place).name)):
            if results_of(place) not in weighed:
                return None
            known = weight * fmean(weighed[results_of(place)])
        total += SHORT if known is None else known
    return total


def results_of(folder: str) -> str:
    """The experiment's folder of results that a folder of rounds, trials or scores lies in."""
    return re.sub(r"/(rounds|trials|quality(/\w+)?)$", "", folder)


def begin(outputs: Iterable[str]) -> None:
    """Keep the outputs of a run that begins; what is newer than that file was made by it."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    RUN.write_text(json.dumps([*outputs]), encoding="utf-8")


def left() -> str:
    """How far the run is, and how long its other jobs take; empty where no run is known."""
    try:
        outputs, began = json.loads(RUN.read_text(encoding="utf-8")), RUN.stat().st_mtime_ns
    except (OSError, ValueError):
        return ""
    others = [output for output in outputs if not newer(Path(output), began)]
    seconds = forecast(others)
    about = f", about {in_words(seconds)} left" if seconds else ""
    return f"{len(outputs) - len(others)} of {len(outputs)} jobs done{about}"


def newer(output: Path, began: int) -> bool:
    try:
        return output.lstat().st_mtime_ns >= began
    except OSError:
        return False


def in_words(seconds: float) -> str:
    """Seconds as a person would say them: 40 s, 9 min, 2 h 10 min."""
    if seconds < 60:
        return f"{max(10, 10 * round(seconds / 10))} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min" if minutes % 60 else f"{minutes // 60} h"


def tell() -> None:
    """Say it on a terminal; nothing where the output is piped."""
    if sys.stderr.isatty() and (line := left()):
        print(line, file=sys.stderr)


def tell_plan(outputs: Callable[[], list[str]], search: Callable[[], float]) -> None:
    """Say at the end of a dry run how long the run would take; ``search`` as in ``forecast``."""
    if not (due := outputs()):
        return
    seconds = forecast(due, search())
    print(
        f"Plan: {len(due)} jobs, about {in_words(seconds)}, by the time that such jobs took here."
        if seconds is not None
        else f"Plan: {len(due)} jobs. How long they take is known after the first of each kind.",
        file=sys.stderr,
    )
