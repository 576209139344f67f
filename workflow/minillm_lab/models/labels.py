"""Labels of GGUF files, from the names that publishers give to them."""

import re
from collections.abc import Iterable
from pathlib import PurePosixPath

from minillm_lab.experiment.libraries import library_of
from minillm_lab.experiment.sources import PART, QUANTIZATION_TYPES
from minillm_lab.jobs.errors import LabError
from minillm_lab.models.remote import File

TYPE_AT_END = re.compile(
    r"(?:^|[-._])((?:(?:UD|i1)[-._])?(?:T?I?Q\d\w*|MXFP\d\w*|NVFP\d\w*|BF16|F16|F32|FP16|FP32))$",
    re.IGNORECASE,
)
BESIDE_A_MODEL = re.compile("mmproj|imatrix", re.IGNORECASE)  # files that keep their whole name
CUT_UP = re.compile(r"\.gguf[-.](part\d+of\d+|split-\w+)$")  # bytes of a file, no GGUF by itself


def grouped(files: Iterable[File], source: str) -> list[list[File]]:
    """The files by GGUF: a file by itself, or the parts of a split in order.

    Raises LabError where a part is missing.
    """
    found: dict[tuple[str, str], list[File]] = {}
    for file in sorted(files, key=lambda file: file.path):
        part = PART.search(file.path)
        stem = file.path[: part.start("number")] if part else file.path
        found.setdefault((stem, part["count"] if part else ""), []).append(file)
    for (stem, count), parts in found.items():
        names = {file.path for file in parts}
        wanted = [f"{stem}{i:05}-of-{count}.gguf" for i in range(1, int(count or 0) + 1)]
        if missing := [name for name in wanted if name not in names]:
            raise LabError(f"{source}: the part {missing[0]} is missing")
    return list(found.values())


def labelled(splits: list[list[File]]) -> dict[str, list[File]]:
    """A label for each GGUF: what its name has beyond its model's, without dots, and no twice.

    Files of one label are told apart by the first owner or folder in which their paths differ.
    """
    labels = [label_of(parts[0]) for parts in splits]
    folders = [PurePosixPath(parts[0].repository, parts[0].path).parts[:-1] for parts in splits]
    found: dict[str, list[File]] = {}
    for label, parts, own in zip(labels, splits, folders, strict=True):
        others = [
            folder
            for folder, one in zip(folders, labels, strict=True)
            if one.lower() == label.lower()
        ]
        unlike = (f for i, f in enumerate(own) if any(o[i : i + 1] != (f,) for o in others))
        whole = "-".join(filter(None, [word(next(unlike, "")), label]))[:76]
        taken = {one.lower() for one in found} | {"safetensors"}
        tries = [whole, *(f"{whole}-{i}" for i in range(2, len(splits) + 2))]
        free = (t for t in tries if t.lower() not in taken and not library_of(t))
        found[next(free)] = parts
    return found


def label_of(file: File) -> str:
    """The label that a file's name has by itself."""
    path = PurePosixPath(file.path)
    model = re.sub(r"[-_.]?gguf$", "", file.repository.partition("/")[2], flags=re.IGNORECASE)
    part = PART.search(path.name)
    stem = part["stem"] if part else path.name.removesuffix(".gguf")
    at_end = None if BESIDE_A_MODEL.search(stem) else TYPE_AT_END.search(stem)
    beyond = re.match(rf"{re.escape(model)}(?=[-_.]|$)", stem, re.IGNORECASE) if model else None
    rest = stem[beyond.end() :] if beyond and not BESIDE_A_MODEL.search(stem) else stem
    label = word(at_end[1] if at_end else rest or stem)
    label = re.sub(r"^(FP)(16|32)$", r"F\2", label, flags=re.IGNORECASE)
    return label.upper() if label.upper() in QUANTIZATION_TYPES else label or "file"


def word(text: str) -> str:
    """A text as a label may hold it."""
    return re.sub(r"[^A-Za-z0-9_]+", "-", text).strip("-_")


def named(label: str, type_: str) -> bool:
    """Whether a label names a type, perhaps with a folder before it or a number behind."""
    return bool(re.search(rf"(^|-){re.escape(type_)}(-\d+)?$", label, re.IGNORECASE))
