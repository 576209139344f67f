"""How long an experiment will take on this machine, about, before anything of it ran.

A job's seconds are those of its start, of reading its weights and of its tokens. A variant's tokens
go by two rates for each kind of weights: the bytes of weights read per second in decoding, and the
operations per second in prefill (two for each weight and token). Results measured on this machine
give them, of whatever model; without any, the yardsticks do, with the shares of them that
SmolLM2-135M reached on two machines. docs/new.md says how far forecasts were off.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from statistics import median

from pydantic import ValidationError

from minillm_lab.benchmark import machine
from minillm_lab.benchmark.trial import BLOCKS, commands
from minillm_lab.benchmark.yardsticks import read_once
from minillm_lab.experiment.libraries import library_of
from minillm_lab.experiment.plan import OWN_CHUNKS, Plan
from minillm_lab.experiment.sources import UNQUANTIZED
from minillm_lab.experiment.variants import AnyVariant, LlamaCppVariant
from minillm_lab.jobs.limits import physical_cores
from minillm_lab.jobs.time_left import in_words
from minillm_lab.models.needs import TEXT
from minillm_lab.quality.evaluation import REPLY
from minillm_lab.records import TOKENS_AT_DEPTH
from minillm_lab.result import Result

# Shares of the yardsticks: of memory's in decoding, of compute's in prefill.
DECODE = {"float16": 0.26, "unquantized": 0.55, "quantized": 0.35}
PREFILL = {"float16": 0.8, "unquantized": 0.6, "quantized": 0.6}
FLOAT32 = 1.3  # times the rate of float16 in decoding
START = {
    "transformers": 5.5,
    "llama.cpp": 2.0,
    "mlx": 5.5,
    "openvino": 4.0,
    "onnx": 4.0,
}  # seconds of a process that does nothing else
READ = 1e9  # bytes of weights per second in loading
MADE = 4e7  # bytes per second of a file that is made here
READING = 0.4  # seconds of both yardsticks
AGAIN = 1.15  # times the blocks of a trial, since a change of state asks for more
TOKEN = 5e-5  # least seconds of a token decoded; a model of 0.5 million weights took up to 8e-5
SCORED = 1.35  # times a token in scoring, with what is made of its logits
IN_FLOAT32 = 0.7  # of the unquantized GGUF's rate: scoring in Transformers is at least so fast
SHORT = 1.0  # seconds of each other job
OWN_TOKENS = OWN_CHUNKS * 512  # of the calibration text
F16 = LlamaCppVariant.model_validate({"runtime": "llama.cpp", "quantization": "F16"})
PROMPT, QUESTIONS, PROMPTS = 64, 4800, 8  # tokens, and prompts to reply to
MOST_READ = 50  # results that rates are taken from
Settings = AnyVariant
Size = Callable[[str, str], float]  # bytes of a model in a form, by the names of both


@dataclass(frozen=True)
class Rates:
    """Bytes read per second in decoding and operations per second in prefill, by kind."""

    decode: Mapping[str, float]
    prefill: Mapping[str, float]
    measured: bool  # whether results of this machine gave them


def measured_here(folder: Path, fingerprint: str) -> list[Result]:
    """Results in a folder of results, or in folders in it, that this machine's CPU gave."""
    found = list[Result]()
    for path in [*folder.glob("*.json"), *folder.glob("*/*.json")]:
        try:
            result = Result.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):  # another file, or of an older version
            continue
        if result.machine["fingerprint"] == fingerprint and result.runtime["backend"] == "CPU":
            found.append(result)
        if len(found) == MOST_READ:
            break
    return found


def rates(results: Iterable[Result], threads: int) -> Rates:
    """The rates of this machine; each kind that no result has goes by its share."""
    decode, prefill = dict[str, list[float]](), dict[str, list[float]]()
    for result in results:
        model, metrics = result.model, result.metrics
        if library_of(model.quantization):
            continue
        plain = "unquantized" if model.quantization in UNQUANTIZED else "quantized"
        kind = result.runtime["settings"].get("dtype", plain)
        read = metrics.get("prefill_tokens_per_second_at_512")
        decoded = metrics.get("decode_tokens_per_second")
        if read and decoded and read.value and decoded.value:
            decode.setdefault(kind, []).append(decoded.value * (model.read_bytes or model.size))
            prefill.setdefault(kind, []).append(2 * read.value * model.parameters)
    found = [{kind: median(each) for kind, each in by.items()} for by in (decode, prefill)]
    if missing := DECODE.keys() - decode.keys():
        now = read_once(threads)
        bytes_, operations = now.memory_bytes_per_second, now.compute_flops
        found[0] |= {kind: DECODE[kind] * bytes_ for kind in missing}
        found[1] |= {kind: PREFILL[kind] * operations for kind in missing}
    found[0].setdefault("float32", FLOAT32 * found[0]["float16"])
    found[1].setdefault("float32", found[1]["float16"])
    return Rates(found[0], found[1], not missing or bool(decode.keys() & {"quantized"}))


@dataclass(frozen=True)
class Speeds:
    """Seconds of a process's start, of a token decoded, read with many others, and scored."""

    start: float
    token: float
    read: float
    scored: float


def speeds(settings: Settings, size: float, weights: float, found: Rates) -> Speeds:
    """The seconds of a variant whose form takes ``size`` bytes, for so many ``weights``."""
    if settings.runtime == "transformers":
        kind = "float32" if settings.dtype == "float32" else "float16"
        # Where the CPU has no fast products of float16, scores multiply in float32.
        scored = max(found.prefill[kind], IN_FLOAT32 * found.prefill["unquantized"])
    else:
        kind = "unquantized" if settings.form in UNQUANTIZED else "quantized"
        scored = found.prefill[kind]
    return Speeds(
        START[settings.runtime] + size / READ,
        max(TOKEN, size / found.decode[kind]),
        2 * weights / found.prefill[kind],
        SCORED * 2 * weights / scored,
    )


def of_trial(plan: Plan, own: Speeds, base: Speeds) -> float:
    experiment = plan.experiment
    prefill, step = PROMPT * (own.read + base.read), own.token + base.token
    slices = commands(prefill, step, experiment.generate, experiment.trial_seconds / BLOCKS)
    prefills = slices.count("prefill")
    decodes = [list(map(int, slice_.split()[1:])) for slice_ in slices[prefills:]]
    block = prefills * (prefill + step) + READING
    block += sum(
        (1 + tokens) * step + skipped * (own.read + base.read) for tokens, skipped in decodes
    )
    blocks = max(BLOCKS, ceil(experiment.trial_seconds / block))
    return max(own.start, base.start) + prefill + 9 * step + AGAIN * blocks * block


def seconds(plan: Plan, size: Size, made: Iterable[float], found: Rates) -> dict[str, float]:
    """The seconds of an experiment's jobs, by what they do; ``made``: bytes of files made here."""
    experiment, quality = plan.experiment, plan.experiment.quality

    def parts(settings: Settings, model: str) -> Speeds:
        return speeds(settings, size(model, settings.held), size(model, "F16") / 2, found)

    every = {n: parts(v, plan.model(n)) for n, v in experiment.variants.items()}
    base, answers = every[experiment.baseline], experiment.warmups + experiment.repetitions
    text = min(quality.chunks * quality.context, TEXT) if quality and quality.chunks else TEXT
    text += QUESTIONS if quality and quality.questions else 0
    text += PROMPTS * (PROMPT + REPLY) + sum(quality.long_contexts if quality else ())
    took = dict.fromkeys(("models", "rounds", "trials", "quality"), 0.0)
    took["models"] = sum(made) / MADE + SHORT * (10 + 3 * len(every))
    for model in plan.with_imatrix:
        own = parts(F16, model)
        took["models"] += own.start + OWN_TOKENS * own.scored
    for name, own in every.items():
        answer = PROMPT * own.read + experiment.generate * own.token
        deep = sum(d * own.read + TOKENS_AT_DEPTH * own.token for d in plan.depths(name))
        took["rounds"] += experiment.rounds * (own.start + 2 * READING + answers * answer + deep)
        took["trials"] += len(plan.trials(name)) * of_trial(plan, own, base)
        took["quality"] += own.start + text * own.scored if quality else 0.0
    for model in plan.with_reference:  # one made elsewhere takes no time here
        computed = plan.computed(model)
        own, at_once = parts(computed, model), computed.runtime == "transformers"
        replies = (REPLY * (1 if at_once else PROMPTS) + experiment.generate) * own.token
        took["quality"] += 2 * own.start + text * own.scored + replies
    return took


def said(plan: Plan, size: Size, made: Iterable[float], folder: Path) -> str:
    """The forecast as one line."""
    fingerprint = machine.describe()["fingerprint"]
    found = rates(measured_here(folder, fingerprint), physical_cores())
    took = seconds(plan, size, made, found)
    parts = ", ".join(f"{what} {in_words(each)}" for what, each in took.items() if each)
    how = (
        "by speeds measured on this machine"
        if found.measured
        else "by rates of another model on other machines: half or twice that is possible"
    )
    return f"Time: about {in_words(sum(took.values()))} without the download ({parts}), {how}."
