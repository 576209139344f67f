"""Files: written as a whole or not at all, checked for space, and their checksums."""

import glob
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from minillm_lab.jobs.errors import LabError

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
ONNX = "model.onnx"  # and model.onnx.data, which holds the values
CONTENTS = "contents.json"  # beside it: what ``models.pack_onnx`` says of it
OPENVINO = ("openvino_model.xml", "openvino_model.bin")  # the model, its weights


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it into place if the block succeeds.

    The block may make a file or a folder there. If it raises, its file is removed and an earlier
    one at ``path`` is still there. Raises LabError if the path cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        left_behind = f".{glob.escape(path.name)}.*.part"  # by a process that was killed
        for left_over in path.parent.glob(left_behind):
            shutil.rmtree(left_over, ignore_errors=True)
        with tempfile.TemporaryDirectory(
            prefix=f".{path.name}.", suffix=".part", dir=path.parent
        ) as scratch:
            part = Path(scratch) / path.name
            yield part
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            part.replace(path)
    except OSError as error:
        raise LabError(f"cannot write {path}: {error.strerror or error}") from error


def check_space(path: Path, needed: int) -> None:
    """Raise LabError if ``needed`` bytes do not fit on the disk; called before a large write."""
    folder = next(folder for folder in path.absolute().parents if folder.exists())
    if (free := shutil.disk_usage(folder).free) < needed:
        raise LabError(
            f"cannot write {path}: it needs {needed / 1e6:.1f} MB, and its disk has"
            f" {free / 1e6:.1f} MB left; make room and start again"
        )


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8 with LF line ends, as a whole or not at all."""
    with written_whole(path) as part:
        part.write_text(text, encoding="utf-8", newline="\n")
        if path.exists():
            shutil.copymode(path, part)


def read_text(path: Path) -> str:
    """The content of a UTF-8 file, line ends unchanged. Raises LabError if it is not one."""
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise LabError(f"{path}: is not UTF-8 text (byte {error.start}); convert it") from None
    except OSError as error:
        raise LabError(f"{path}: {error.strerror}") from None


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's content, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_sha256(path: Path, expected: str | None, name: str) -> None:
    """Raise LabError if the file does not have the ``expected`` checksum.

    The message calls the file ``name``. Without an expected checksum nothing is read.
    """
    if expected and (found := sha256_of(path)) != expected.lower():
        raise LabError(
            f"{name}: sha256 is {found}, expected {expected.lower()};"
            " the file is damaged (fetch it again), or the config is wrong (correct it)"
        )


def gguf_files(weights: Path) -> list[Path]:
    """The files of a model as GGUF: itself, or a folder's parts in order; none of safetensors."""
    return sorted(weights.glob("*.gguf")) if weights.is_dir() else [weights]


def weight_files(weights: Path) -> list[Path]:
    """The files that hold a model's weights: a GGUF, or a folder's safetensors or OpenVINO."""
    if files := gguf_files(weights):
        return files
    if as_onnx := sorted(weights.glob(f"{ONNX}*")):
        return as_onnx
    if (weights / OPENVINO[0]).exists():
        return [weights / name for name in OPENVINO]
    names = chosen_safetensors(weights, [file.name for file in weights.iterdir()], str(weights))
    return [weights / name for name in names]


def chosen_safetensors(folder: Path, names: Iterable[str], said: str) -> list[str]:
    """Those of ``names`` that are the model: the index's files, else SINGLE, else the only one.

    Some publishers add a second copy of all weights. Messages call the folder ``said``. Raises
    LabError if it is not clear which files are the model, or the index names a missing file.
    """
    files = sorted(name for name in names if name.endswith(".safetensors"))
    if (folder / INDEX).exists():
        indexed = parts_named_in(folder / INDEX, said)
        if missing := sorted(indexed.difference(files)):
            raise LabError(f"{said}: {INDEX} names {missing[0]!r}, which is not there; add it")
        return sorted(indexed)
    if SINGLE in files:
        return [SINGLE]
    if len(files) > 1:
        raise LabError(
            f"{said}: it is not clear which of {len(files)} *.safetensors files are the model;"
            f" add {INDEX}, or name the model {SINGLE}"
        )
    return files


def parts_named_in(index: Path, said: str) -> set[str]:
    """The files that an index of safetensors names. Raises LabError if it is not an index."""
    try:
        return set(json.loads(index.read_bytes())["weight_map"].values())
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise LabError(
            f"{said}: {index.name} is not an index of safetensors: {error!r}; replace it"
        ) from None
