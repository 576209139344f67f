"""One round of one variant, in a fresh process: timed answers, then a cold and a warm load.

docs/measurement.md says what each clock includes.
"""

import argparse
import gc
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from minillm_lab.benchmark import machine, memory
from minillm_lab.benchmark.scratch import copied
from minillm_lab.benchmark.yardsticks import read_once
from minillm_lab.jobs import limits
from minillm_lab.jobs.command import log, progress, run
from minillm_lab.jobs.errors import LabError
from minillm_lab.jobs.files import weight_files
from minillm_lab.records import (
    TOKENS_AT_DEPTH,
    Depth,
    Output,
    Prompt,
    Repetition,
    Round,
    read_record,
    write_record,
)
from minillm_lab.runtimes import (
    Options,
    Runtime,
    check_memory,
    described,
    open_runtime,
    resolved,
)

T = TypeVar("T")
TRIES = 3  # attempts for one sample
WARMUP_TOKENS = 512  # not timed, before a long prompt; a whole one before it changed nothing
LOADS = 2  # attempts until the bytes read show that the load was of its kind


def answer(runtime: Runtime, prompt: list[int], tokens: int) -> tuple[Repetition, list[int]]:
    """Generate exactly ``tokens`` tokens, greedily, end of text ignored; time each step.

    The engine's times (prefill, decode) include only the runtime. first_token_seconds and
    generate_seconds, for which a user waits, include choosing the token as well.
    """
    clock = time.perf_counter
    runtime.clear()
    start = clock()
    runtime.prefill(prompt)
    prefilled = clock()
    token = int(runtime.logits().argmax())
    first = clock()
    ids, steps = [token], []
    for _ in range(tokens - 1):
        before = clock()
        runtime.decode(token)
        steps.append(clock() - before)
        token = int(runtime.logits().argmax())
        ids.append(token)
    return Repetition(
        prefill_seconds=prefilled - start,
        first_token_seconds=first - start,
        decode_seconds=steps,
        generate_seconds=clock() - start,
    ), ids


def flaw_of(ids: list[int], text: str, finite: bool) -> str | None:
    """Why an answer means nothing, or None; ``finite``: whether the last logits were numbers."""
    if not finite:
        return "the model computes values that are not numbers"
    if len(ids) > 1 and len({*ids}) == 1:
        return "it is one token, repeated"
    return None if text.strip() else "it is empty"


def undisturbed(take: Callable[[], T], sample_name: str, warnings: list[str]) -> T:
    """A sample during which the machine neither slept nor had much other load.

    A disturbed sample is repeated, after an interruption with a warning. If only other load
    disturbs it every time, the last sample is kept. Raises LabError if the machine slept or the
    process was stopped every time.
    """
    busy: list[T] = []
    for _ in range(TRIES):
        before, watch = machine.interruptions(), machine.Watch()
        sample = take()
        if (told := machine.interruptions().since(before)) is not None:
            warnings.append(f"{sample_name}: {told} during the sample, which was taken again")
        elif (load := watch.other_load() or 0.0) <= machine.OTHER_LOAD:
            return sample
        else:
            busy.append(sample)
            log.info("%s: other processes kept %.1f cores busy", sample_name, load)
    if busy:
        return busy[-1]
    raise LabError(
        f"{sample_name}: interrupted {TRIES} times; run it while the machine stays awake"
    )


def at_depth(runtime: Runtime, prompt: list[int], depth: int) -> Depth:
    """Time a prompt of ``depth`` tokens (the prompt, repeated) and some tokens after it.

    A GPU's kernels are chosen at each length's first use, so there all of it is done before.
    """
    ids = (prompt * (depth // len(prompt) + 1))[:depth]
    on_gpu = runtime.facts()["backend"] != "CPU"
    runtime.clear()
    runtime.prefill(ids if on_gpu else ids[:WARMUP_TOKENS])
    for token in ids[:TOKENS_AT_DEPTH] if on_gpu else ():
        runtime.decode(token)
    runtime.clear()
    start = time.perf_counter()
    runtime.prefill(ids)
    prefilled = time.perf_counter() - start
    runtime.logits().argmax()
    first = time.perf_counter() - start
    steps = []
    for token in ids[:TOKENS_AT_DEPTH]:
        before = time.perf_counter()
        runtime.decode(token)
        steps.append(time.perf_counter() - before)
    return Depth(
        prompt_tokens=depth,
        prefill_seconds=prefilled,
        first_token_seconds=first,
        decode_seconds=steps,
        memory=memory.measure(),
    )


def doubt(read: int | None, size: int, cold: bool) -> str | None:
    """Why a load was not cold (or warm), by its bytes read from storage; None if it was.

    ``size`` is the weights' bytes.
    """
    if read is None:
        untold = "this system does not report how many bytes a load reads from storage"
        return untold if cold else None  # a warm load follows another load of the same file
    told = (
        f"the load read {read / 1e6:.1f} MB from storage, and the weights hold {size / 1e6:.1f} MB"
    )
    if not cold:
        return f"{told}: they were not all in memory" if read >= 0.01 * size else None
    if read > 1.05 * size:
        return f"{told}: it read other data too"
    if read < 0.95 * size:
        return f"{told}: the system did not count all, or had some in memory"
    return None


def timed_load(
    runtime: Runtime, weights: Path, options: Options, cold: bool, warnings: list[str]
) -> tuple[float | None, int | None]:
    """Seconds until every weight is read and a context is made, and bytes read from storage.

    The model is freed first. A cold load evicts its file, a warm load finds it in the page cache.
    If the bytes do not show this, the seconds are None and a warning says why. A process's first
    load is not timed so, since it also initializes libraries.
    """
    metric, files = f"load_{'cold' if cold else 'warm'}_seconds", weight_files(weights)
    size = sum(file.stat().st_size for file in files)

    def take() -> tuple[float | None, int | None, str | None]:
        runtime.unload()
        gc.collect()
        if cold and (kept := memory.evict(files)) is not None:
            return None, None, kept
        before = memory.storage_bytes_read()
        start = time.perf_counter()
        runtime.load(weights, options)
        seconds = time.perf_counter() - start
        after = memory.storage_bytes_read()
        read = None if before is None or after is None else after - before
        return seconds, read, doubt(read, size, cold)

    for _ in range(LOADS):
        seconds, read, reason = undisturbed(take, metric, warnings)
        if reason is None:
            return seconds, read
        log.info("%s: %s", metric, reason)
    warnings.append(f"{metric}: {reason}")
    return None, read


def measure_round(
    variant: str, number: int, weights: Path, prompt: dict[str, Any], settings: dict[str, Any]
) -> Round:
    """Run one round. Raises LabError if the model cannot be loaded or does not fit."""
    options = resolved(settings)
    tokens, generate = len(prompt["token_ids"]), settings["generate"]
    if tokens + generate > options.context:
        raise LabError(
            f"{variant}: {tokens} prompt tokens and {generate} new ones exceed the context of"
            f" {options.context}; raise 'context' or lower 'generate'"
        )
    check_memory(weights, options)
    with copied(weights, settings.get("scratch")) as own:
        return measured(variant, number, own, prompt, settings, options)


def measured(
    variant: str,
    number: int,
    weights: Path,
    prompt: dict[str, Any],
    settings: dict[str, Any],
    options: Options,
) -> Round:
    """The round itself. Raises LabError if the model cannot be loaded."""
    measured_at = datetime.now(UTC).isoformat(timespec="seconds")
    warnings: list[str] = []
    ids, generate = prompt["token_ids"], settings["generate"]
    runtime = open_runtime(settings["runtime"])

    at_start = read_once(options.threads)
    runtime.prepare(weights, options)
    watch = machine.Watch()
    machine.notice_stops()
    before = memory.measure()
    runtime.load(weights, options)  # not timed: a process's first load initializes libraries
    after_load = memory.measure()

    own_ids = runtime.tokenize(prompt["text"], not prompt["chat_template"])
    if own_ids != ids:
        warnings.append(
            f"tokenizers disagree on the prompt: {len(own_ids)} tokens by this runtime, {len(ids)}"
            " by"
            f" the model's source ({prompt['tokenizer']}); the source's were used"
        )
    facts = described(settings["runtime"], options, runtime)
    if settings["device"] == "gpu" and facts["backend"] == "CPU":
        warnings.append(
            "device: gpu was asked for, but the runtime found no GPU and ran on the CPU"
        )

    warmups, repetitions, answers, depths, finite = [], [], [], [], True
    steps = settings["warmups"] + settings["repetitions"] + len(settings["depths"])
    with progress(f"{variant} round {number}", steps, "steps") as advance:
        advance(0, "warm-up")
        for _ in range(settings["warmups"]):
            warmups.append(answer(runtime, ids, generate)[0])
            advance(1)
        watch.clock_starts()
        for i in range(settings["repetitions"]):
            stage = f"repetition {i + 1} of {settings['repetitions']}"
            advance(0, stage)
            repetition, said = undisturbed(lambda: answer(runtime, ids, generate), stage, warnings)
            repetitions.append(repetition)
            answers.append(said)
            finite = finite and bool(np.isfinite(runtime.logits().max()))
            advance(1)
        if any(said != answers[0] for said in answers):
            warnings.append("greedy answers differ between repetitions; the result has the first")
        watch.clock_ends()
        text = runtime.detokenize(answers[0])
        after_generation = memory.measure()
        for depth in settings["depths"]:
            stage = f"prompt of {depth} tokens"
            advance(0, stage)
            take = partial(at_depth, runtime, ids, depth)
            depths.append(undisturbed(take, stage, warnings))
            advance(1)
    memory_peak, accelerator_peak = limits.peak(), runtime.accelerator_memory_peak()

    load_cold, cold_read = timed_load(runtime, weights, options, True, warnings)
    load_warm, warm_read = timed_load(runtime, weights, options, False, warnings)
    runtime.unload()
    return Round(
        variant=variant,
        round=number,
        measured_at=measured_at,
        machine=machine.describe(),
        runtime=facts,
        prompt_tokens=len(ids),
        generated_tokens=len(answers[0]),
        scratch="scratch" in settings,
        load_cold_seconds=load_cold,
        load_cold_read_bytes=cold_read,
        load_warm_seconds=load_warm,
        load_warm_read_bytes=warm_read,
        memory_before_load=before,
        memory_after_load=after_load,
        memory_after_generation=after_generation,
        memory_peak_bytes=memory_peak,
        accelerator_memory_peak_bytes=accelerator_peak,
        warmups=warmups,
        repetitions=repetitions,
        depths=depths,
        conditions=watch.conditions(),
        before=at_start,
        after=read_once(options.threads),
        output=Output(text=text, token_ids=answers[0], flaw=flaw_of(answers[0], text, finite)),
        warnings=warnings,
    )


def main(arguments: argparse.Namespace) -> None:
    record = measure_round(
        arguments.variant,
        arguments.round,
        arguments.weights,
        read_record(arguments.prompt, Prompt).model_dump(),
        json.loads(arguments.settings),
    )
    write_record(arguments.output, record)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variant", required=True)
    parser.add_argument("--round", type=int, required=True)
    parser.add_argument("--weights", type=Path, required=True, help="a GGUF file or a folder")
    parser.add_argument("--prompt", type=Path, required=True, help="the prompt, tokenized")
    parser.add_argument("--settings", required=True, help="the variant's settings, as JSON")
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)
