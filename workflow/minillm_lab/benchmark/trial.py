"""One trial: a variant and the baseline, both loaded and alive, take turns at short slices of work.

The waiting side is stopped by a signal, since its threads would spin and take the other's cores.
The two slices of a cycle are some tenths of a second apart, and the sides alternate in going first,
so a change of the machine affects both alike. Cycles come in blocks, and the yardsticks are read
before and after each block, since a state of the machine may last only some seconds. A trial during
which other programs ran is repeated.
"""

import argparse
import json
import math
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NoReturn

import psutil

from minillm_lab.benchmark import machine
from minillm_lab.benchmark.yardsticks import yardsticks
from minillm_lab.header import read_gguf
from minillm_lab.jobs.command import log, progress, run, say
from minillm_lab.jobs.errors import LabError
from minillm_lab.jobs.limits import memory_limit
from minillm_lab.jobs.watcher import cause_of_death, talking
from minillm_lab.records import Block, NoTrial, Reading, Side, Trial, write_record
from minillm_lab.runtimes import resolved, size_in

BLOCKS = 2  # least blocks, each of prefills, then decoding along one answer
PREFILLS = 2  # most slices of prefill in a block
DECODES = 6  # least slices of decoding in a block
SLICE = 3  # tokens of such a slice; many short slices tell more than a few long ones
WARMING = 8  # tokens of the first slice, whose seconds say how many slices fit into a block
CHANGED = 0.10  # change of a yardstick's logarithm over a block that shows another state
MOST = 4  # most blocks, if the machine changes between states
ATTEMPTS = 3
SPARE = 1.2  # times the weights; two models need this memory together
Samples = dict[str, list[float]]  # seconds, by what was timed


class Live:
    """The process of one side, which is stopped except while it works."""

    def __init__(self, variant: str, weights: Path, prompt: Path, settings: str) -> None:
        self.variant, self.weights = variant, weights
        command = [
            *(sys.executable, "-m", "minillm_lab.benchmark.slices", "--weights", str(weights)),
            *("--prompt", str(prompt), "--settings", settings),
        ]
        self.said = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed with the process)
        self.process = talking(command, stderr=self.said)

    def __enter__(self) -> "Live":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.communicate()
        self.said.close()

    def loaded(self) -> dict[str, Any]:
        """Wait until the model is loaded and stop the process; the runtime's facts."""
        facts: dict[str, Any] = self._report()
        self.process.send_signal(signal.SIGSTOP)
        return facts

    def work(self, command: str) -> dict[str, float]:
        """Wake the process for one slice and stop it again; seconds by field of ``Slices``."""
        assert self.process.stdin
        self.process.send_signal(signal.SIGCONT)
        try:
            self.process.stdin.write(f"{command}\n")
        except OSError:  # it died while it waited
            self._explain()
        seconds: dict[str, float] = self._report()
        self.process.send_signal(signal.SIGSTOP)
        return seconds

    def cpu_seconds(self) -> float:
        """The CPU time that the process has taken so far."""
        try:
            times = psutil.Process(self.process.pid).cpu_times()
        except psutil.Error:
            self._explain()
        return float(times.user + times.system)

    def _report(self) -> Any:
        assert self.process.stdout
        if line := self.process.stdout.readline():
            return json.loads(line)
        self._explain()

    def _explain(self) -> NoReturn:
        """Raise LabError with the reason why the process ended; its output goes to the log."""
        status = self.process.wait()
        self.said.seek(0)
        said = self.said.read().strip().splitlines()
        for line in said:
            log.info("%s: %s", self.variant, line)
        last = said[-1] if said else ""
        if last.startswith("error: "):
            raise LabError(last.removeprefix("error: "))
        why = cause_of_death(-status) if status < 0 else last or f"ended with status {status}"
        raise LabError(f"{self.variant}: {self.weights}: {why}")


def block(
    sides: list[Live], slices: list[str], turns: Iterator[int]
) -> tuple[list[Samples], float]:
    """One block of slices: the samples of each side, and other programs' load in cores."""
    samples: list[Samples] = [{}, {}]
    before, watch = sum(side.cpu_seconds() for side in sides), machine.Watch()
    for command in slices:
        for i in (0, 1) if next(turns) % 2 else (1, 0):
            for field, seconds in sides[i].work(command).items():
                samples[i].setdefault(field, []).append(seconds)
    own = sum(side.cpu_seconds() for side in sides) - before
    return samples, watch.other_load(own) or 0.0


def commands(prefill: float, step: float, generate: int, seconds: float) -> list[str]:
    """The commands of a block of about ``seconds``, one for each slice.

    ``prefill`` and ``step`` are seconds of both sides together, for the prompt and for a token.
    Slices of decoding follow one another along an answer of ``generate`` tokens, which may start
    over. Where they are too few for it, at least ``DECODES``, half of them are at its beginning and
    half at its end.
    """
    prefills = PREFILLS if PREFILLS * prefill < seconds / 2 else 1
    tokens = max(1, min(SLICE, (generate - 1) // 2 - 1))
    slice_, fitting = (tokens + 1) * step, max(1, (generate - 1) // (tokens + 1))
    decodes = max(DECODES, int(seconds / slice_))  # one token is decoded on waking
    if decodes > fitting:  # each time that the answer starts over, the prompt is read
        decodes = max(DECODES, fitting, int(seconds / (slice_ + prefill / fitting)))
    between = max(0, generate - 1 - decodes * (tokens + 1))
    skips = [between if i == decodes // 2 else 0 for i in range(decodes)]
    return ["prefill"] * prefills + [f"decode {tokens} {skipped}" for skipped in skips]


def blocks(
    sides: list[Live], settings: dict[str, Any], threads: int, read: Callable[[], Reading]
) -> tuple[list[Block], float]:
    """The blocks of a trial, with readings in between, and other programs' load in the last.

    Blocks continue for at least the seconds of a trial, and until BLOCKS of them began and ended in
    one state or there are MOST. They end early with the first during which other programs ran.
    """
    generate, seconds = settings["generate"], settings["seconds"]
    tokens = max(1, min(WARMING, generate - 2))  # the first slice of each kind is not counted
    prefill = sum(side.work("prefill")["first_token_seconds"] for side in sides)
    step = sum(side.work(f"decode {tokens}")["step_seconds"] for side in sides)
    slices = commands(prefill, step, generate, seconds / BLOCKS)
    start, turns = time.monotonic(), count()
    found: list[Block] = []
    reading = read()
    while True:
        (variant, baseline), load = block(sides, slices, turns)
        at_start, reading = reading, read()
        told = {"before": at_start, "after": reading, "variant": variant, "baseline": baseline}
        found.append(Block.model_validate(told))
        steady = sum(not changed(b.before, b.after) for b in found)
        long_enough = time.monotonic() - start >= seconds
        enough = long_enough and (steady >= BLOCKS or len(found) >= MOST)
        if enough or machine.disturbing(load, threads):
            return found, load


def changed(before: Reading, after: Reading) -> bool:
    """Whether the machine changed its state between two readings."""
    pairs = zip(before.model_dump().values(), after.model_dump().values(), strict=True)
    return any(abs(math.log(b / a)) > CHANGED for a, b in pairs)


def disturbance(load: float, threads: int) -> str | None:
    """Why a trial does not count, in words; None if it counts."""
    if not machine.disturbing(load, threads):
        return None
    return (
        f"other processes kept {load:.1f} cores busy; close them and run again, or lower"
        " 'threads' to the cores that they leave"
    )


def threads_of(settings: list[dict[str, Any]]) -> tuple[int, int]:
    """The threads with which the variant decodes, and the most that either side uses."""
    options = [resolved(of_side) for of_side in settings]
    return options[0].threads, max(each.most_threads for each in options)


def fits_twice(sides: dict[str, tuple[Path, dict[str, Any]]]) -> str | None:
    """Why the two models do not fit into memory together, the machine's or its GPUs'; else None.

    Only weights count, and only where one memory holds both. A model of which both memories hold a
    part counts nowhere, nor does one on a GPU that nvidia-smi does not know.
    """
    held = {held_by(*side) for side in sides.values()}
    if held == {"cpu"}:
        kind, there = "memory", memory_limit()
    elif held == {"gpu"} and (gpus := machine.accelerator_memory("total")):
        kind, there = "the GPU's memory", sum(gpus)
    else:
        return None
    sizes = (
        size_in(weights, settings.get("dtype", "float16")) for weights, settings in sides.values()
    )
    if (needed := SPARE * sum(sizes)) <= there:
        return None
    return (
        f"{' and '.join(sides)} do not fit into {kind} together: they need"
        f" {needed / 1e6:.0f} MB of the {there / 1e6:.0f} MB there are"
    )


def held_by(weights: Path, settings: dict[str, Any]) -> str | None:
    """Whose memory holds the weights, ``cpu`` or ``gpu``; None if each holds some layers.

    Besides the layers of its tensors' names, a model has one for its output.
    """
    offered = settings.get("gpu_layers")
    if settings["device"] == "cpu" or offered == 0:
        return "cpu"
    if offered is None:
        return "gpu"
    named = (re.search(r"blk\.(\d+)\.", tensor.name) for tensor in read_gguf(weights).tensors)
    return "gpu" if offered > 1 + max((int(m[1]) for m in named if m), default=0) else None


def measure_trial(
    number: int, names: list[str], weights: list[Path], prompts: list[Path], settings: list[str]
) -> Trial | NoTrial:
    """Run one trial; every list has the variant first, then the baseline.

    Raises LabError if a model cannot be loaded.
    """
    parsed = [json.loads(s) for s in settings]
    if reason := fits_twice(dict(zip(names, zip(weights, parsed, strict=True), strict=True))):
        say(f"{names[0]}: {reason}; its ratios are taken from rounds")
        return NoTrial(trial=number, variant=names[0], baseline=names[1], reason=reason)
    measured_at = datetime.now(UTC).isoformat(timespec="seconds")
    threads, used = threads_of(parsed)
    with ExitStack() as stack:
        sides = [
            stack.enter_context(Live(*of_side))
            for of_side in zip(names, weights, prompts, settings, strict=True)
        ]
        read = stack.enter_context(yardsticks(threads))
        facts = [side.loaded() for side in sides]
        with progress(f"{names[0]} trial {number}", 1, "trials") as advance:
            for attempt in range(1, ATTEMPTS + 1):
                taken, load = blocks(sides, parsed[0], used, read)
                if (why := disturbance(load, used)) is None:
                    break
                say(f"{names[0]} trial {number}: attempt {attempt} does not count: {why}")
            advance(1)
    variant, baseline = (
        Side.model_validate({"variant": name} | fact)
        for name, fact in zip(names, facts, strict=True)
    )
    return Trial(
        trial=number,
        measured_at=measured_at,
        machine=machine.describe(),
        generated_tokens=parsed[0]["generate"],
        attempts=attempt,
        other_load_cores=load,
        disturbed=why,
        variant=variant,
        baseline=baseline,
        blocks=taken,
    )


def main(arguments: argparse.Namespace) -> None:
    record = measure_trial(
        arguments.trial,
        [arguments.variant, arguments.baseline],
        arguments.weights,
        arguments.prompts * (2 // len(arguments.prompts)),
        arguments.settings,
    )
    write_record(arguments.output, record)


if __name__ == "__main__":
    two: dict[Literal["nargs", "required"], Any] = {"nargs": 2, "required": True}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trial", type=int, required=True)
    parser.add_argument("--variant", required=True)
    parser.add_argument("--baseline", required=True)
    parser.add_argument("--weights", type=Path, help="those of the variant and the baseline", **two)
    parser.add_argument(
        "--prompts",
        type=Path,
        nargs="+",
        required=True,
        help="the prompts of their models, tokenized; one where it is one model",
    )
    parser.add_argument("--settings", help="the settings of each, as JSON", **two)
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)
