"""What a job that reads a model asks of a cluster: memory and time, from the model's size.

These are ceilings for a scheduler, not predictions. A job that was killed is tried again, and
asks for as many times more as it was tried.
"""

from collections.abc import Iterable
from math import ceil
from pathlib import Path

PROCESS_MEGABYTES = 3000  # Python, PyTorch, and the Snakemake that runs the job
COPIES = 4  # F16 weights in float32, and once more while they are converted
FIXED_MINUTES = 15
SINGLE_BYTES_PER_SECOND = 2e9  # each token decoded reads the whole model: a slow memory
BATCH_BYTES_PER_SECOND = 20e9  # tokens of a prompt share the reading
BYTES_PER_TOKEN = 4  # of a text that is stored as token ids in JSON


def megabytes(weights: Iterable[str], attempt: int) -> int:
    """Memory in MB (10⁶ bytes) for the files or folders of models that are held at once."""
    return attempt * (PROCESS_MEGABYTES + ceil(COPIES * sum(map(size, weights)) / 1e6))


def minutes(weights: Iterable[str], batched: int, single: int, attempt: int) -> int:
    """Time in minutes to load models and process tokens by each: in batches, and one by one."""
    seconds_a_byte = batched / BATCH_BYTES_PER_SECOND + single / SINGLE_BYTES_PER_SECOND
    return attempt * (FIXED_MINUTES + ceil(sum(map(size, weights)) * seconds_a_byte / 60))


def tokens_in(text: str) -> int:
    """About how many tokens a text of token ids holds, at most."""
    return Path(text).stat().st_size // BYTES_PER_TOKEN


def size(weights: str) -> int:
    """Bytes of a file, or of all files in a folder. Raises FileNotFoundError."""
    path = Path(weights)
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size
