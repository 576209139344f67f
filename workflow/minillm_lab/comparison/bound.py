"""What limits decoding: the memory that it reads, beside what the machine reads at most."""

from minillm_lab.comparison.claims import DECODE
from minillm_lab.comparison.shapes import Comparison
from minillm_lab.result import Result
from minillm_lab.runtimes import BYTES

SMALLEST = 64e6  # bytes of weights a token: less may stay in the CPU's caches


def bytes_per_token(result: Result) -> float | None:
    """Bytes of weights that decoding a token reads, as they are held; None where not known.

    What a token reads of the context is not in it.
    """
    read, held = result.model.read_bytes, BYTES.get(result.runtime["settings"].get("dtype", ""))
    return read * 8 * held / result.model.bits_per_weight if read and held else read


def read_share(comparison: Comparison, result: Result) -> float | None:
    """The memory that decoding reads per second over what the yardstick reads, in one state.

    None where that is not known, or the weights are so few that caches may hold them.
    """
    states = comparison.states.get(result.machine["fingerprint"])
    decode, read = result.metrics[DECODE].value, bytes_per_token(result)
    if (
        not states
        or not decode
        or not read
        or read < SMALLEST
        or result.runtime["backend"] != "CPU"
    ):
        return None
    return read * decode / states[0].memory_bytes_per_second
