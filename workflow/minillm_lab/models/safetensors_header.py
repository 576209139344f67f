"""The check of a folder of safetensors before a runtime sees it."""

from pathlib import Path

from safetensors import SafetensorError, safe_open

from minillm_lab.header import LARGEST_HEADER
from minillm_lab.jobs.errors import LabError, first_line


def check_safetensors(folder: Path, name: str) -> None:
    """Raise LabError if a folder's safetensors make false claims about themselves.

    Their library checks a header against the file's size, and shapes and types against offsets.
    """
    for file in folder.iterdir():
        if file.suffix != ".safetensors" and file.stat().st_size > LARGEST_HEADER:
            raise LabError(
                f"{name}: {file.name} has more than {LARGEST_HEADER} bytes, which no such file"
                " needs; remove it"
            )
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, framework="numpy") as opened:
                opened.keys()
        except (SafetensorError, OSError) as error:
            raise LabError(
                f"{name}: {file.name} is not a safetensors file that can be used:"
                f" {first_line(error)}; fetch it again, or name another"
            ) from None
