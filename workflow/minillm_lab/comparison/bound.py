"""The limit of decoding: the memory that it reads, compared with the most the machine reads."""

from minillm_lab.comparison.claims import DECODE
from minillm_lab.comparison.shapes import Comparison
from minillm_lab.experiment.libraries import library_of
from minillm_lab.result import Result
from minillm_lab.runtimes import BYTES

SMALLEST = 64e6  # bytes of weights per token; fewer may stay in the CPU's caches


def bytes_per_token(result: Result) -> float | None:
    """Bytes of weights, as held in memory, that decoding a token reads; None if not known.

    They do not include the context that a token reads.
    """
    read, held = result.model.read_bytes, BYTES.get(result.runtime["settings"].get("dtype", ""))
    if library_of(result.model.quantization):
        return None  # what they leave unquantized may be held in another type than the file's
    return read * 8 * held / result.model.bits_per_weight if read and held else read


def read_share(comparison: Comparison, result: Result, state: int = 0) -> float | None:
    """The bytes that decoding reads per second over those of the yardstick in the same state.

    ``state`` is its number, 0 being the most frequent. None if the share is not known, or if the
    weights are so small that caches may hold them.
    """
    states = comparison.states.get(result.machine["fingerprint"], [])[state:]
    metrics = states[0].metrics.get(result.variant, {}) if state and states else result.metrics
    decode = metrics[DECODE].value if DECODE in metrics else None
    read = bytes_per_token(result)
    if (
        not states
        or not decode
        or not read
        or read < SMALLEST
        or result.runtime["backend"] != "CPU"
    ):
        return None
    return read * decode / states[0].memory_bytes_per_second
