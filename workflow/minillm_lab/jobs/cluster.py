"""The memory and time that a job asks of a cluster, from the size of the models that it reads.

These are ceilings for a scheduler, not predictions. A job that failed is repeated; its second
attempt asks for twice, its third for three times as much.
"""

from collections.abc import Iterable
from math import ceil
from pathlib import Path

PROCESS_MEGABYTES = 3000  # Python, PyTorch, and the Snakemake that runs the job
COPIES = 4  # times the file: F16 weights in float32, and once more while they are converted
FIXED_MINUTES = 15
SINGLE_BYTES_PER_SECOND = 2e9  # slow memory; each decoded token reads the whole model
BATCH_BYTES_PER_SECOND = 20e9  # the tokens of a prompt share one reading of the model
BYTES_PER_TOKEN = 4  # at least, in a text that is stored as token ids in JSON


def megabytes(weights: Iterable[str], attempt: int) -> int:
    """Memory in MB (10⁶ bytes) for a job that holds these models (files or folders) at once."""
    return attempt * (PROCESS_MEGABYTES + ceil(COPIES * sum(map(size, weights)) / 1e6))


def minutes(weights: Iterable[str], batched: int, single: int, attempt: int) -> int:
    """Time in minutes for loading models and processing tokens, in batches and one by one."""
    seconds_a_byte = batched / BATCH_BYTES_PER_SECOND + single / SINGLE_BYTES_PER_SECOND
    return attempt * (FIXED_MINUTES + ceil(sum(map(size, weights)) * seconds_a_byte / 60))


def tokens_in(text: str) -> int:
    """About the largest number of tokens that a file of token ids may hold."""
    return Path(text).stat().st_size // BYTES_PER_TOKEN


def size(weights: str) -> int:
    """Bytes of a file, or of all files in a folder. Raises FileNotFoundError."""
    path = Path(weights)
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size
