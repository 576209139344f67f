"""Quantize a GGUF file with llama.cpp's own quantizer, in process.

With an importance matrix, the file says in its header which, as llama.cpp's own tool has it. A dry
run says beforehand which type each tensor gets, and with it the bytes of the file.
"""

import argparse
import ctypes
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
from numpy.typing import NDArray

from minillm_lab.ggml import GGML_QUANT_SIZES, GGMLQuantizationType
from minillm_lab.header import Header, read_gguf
from minillm_lab.jobs.command import run, say
from minillm_lab.jobs.errors import LabError
from minillm_lab.jobs.files import check_space, gguf_files, written_whole
from minillm_lab.models import mixture
from minillm_lab.models.imatrix import Imatrix, read_imatrix
from minillm_lab.runtimes.llama_library import messages, said, said_by_llama
from minillm_lab.wording import without_folders

INTEGER, STRING = 0, 3  # enum llama_model_kv_override_type
LONGEST = 127  # bytes of a text there
ALIGNMENT = 32  # bytes, of whatever llama.cpp's quantizer writes (GGUF_DEFAULT_ALIGNMENT)
SET = ("general.quantization_version", "general.file_type")  # keys with a number of 32 bits
OF_A_RECIPE = re.compile(r"minillm_lab\.(version|recipe\.\d{1,6})")  # keys, as recipe.py tells
LEFT_OUT = ("split.no", "split.count", "split.tensors.count")
TENSOR = r"\[ *\d+/ *\d+\] (.+?) +- \[[^]]*\], type = +(\w+), size = +[\d.]+ MiB"
MADE_INTO = r"(?: -> +[\d.]+ MiB \((\w+)\))?"  # behind a tensor that will have another type


@dataclass
class Quantizer:
    """llama.cpp's quantizer, set up to make one type of a GGUF file or a folder of its parts.

    ``tensors``: types of single tensors, by patterns of their names (``models.mixture``).
    ``told``: what the new file's header says besides, by key.
    """

    source: Path
    type_: str
    imatrix: Path | None = None
    tensors: Mapping[str, str] = field(default_factory=dict)
    told: Mapping[str, str | int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises LabError if the importance matrix is of another model, or a pattern finds none."""
        self.header = read_gguf(self.source)
        told = dict.fromkeys(filter(OF_A_RECIPE.fullmatch, self.header.keys), "") | dict(self.told)
        mixture.asked(self.tensors, self.header)
        self.params = llama_cpp.llama_model_quantize_default_params()
        self.params.ftype = file_type(self.type_)
        self.params.allow_requantize = True  # a source may ship only a quantized GGUF
        self.means: dict[str, NDArray[np.float32]] = {}
        if self.imatrix:
            matrices = read_imatrix(self.imatrix)
            check_fits(matrices, self.header, f"{self.imatrix}: it is no matrix of {self.source}")
            self.means = {name: inputs.means for name, inputs in matrices.found.items()}
            told = matrix_told(self.imatrix, matrices) | told
            self.params.imatrix = as_passed(self.means)
        self.keys = overrides_of_keys(told)
        if told:  # what the source's header says of its own recipe is not the new file's
            self.params.kv_overrides = self.keys
        if self.tensors:
            self.params.tt_overrides = overrides(self.tensors)
        every = hasattr(os, "sched_getaffinity")
        self.params.nthread = len(os.sched_getaffinity(0)) if every else 0

    def types(self) -> dict[str, str]:
        """The type that each tensor would get, by a dry run of llama.cpp's.

        Raises LabError with llama.cpp's own reason, if a tensor would get another type than asked,
        or if it takes an importance matrix and there is none.
        """
        self.params.dry_run = True
        self._run(Path(os.devnull))
        text = "".join(messages)
        made = {n: (new or old).upper() for n, old, new in re.findall(TENSOR + MADE_INTO, text)}
        types = {tensor.name: made.get(tensor.name, tensor.type) for tensor in self.header.tensors}
        overridden = re.findall(r": (\S+) +- applying manual override", text)
        fell_back = re.findall(r"warning: (\S+) +- ncols", text)
        mixture.check(self.tensors, self.header, types, overridden, fell_back, self.means)
        if said_by_llama("(will require an imatrix)"):
            made_so = f"{self.type_} with these tensors" if self.tensors else self.type_
            raise LabError(
                f"{self.source}: llama.cpp makes {made_so} of it only with an importance matrix;"
                " take imatrix: own"
            )
        return types

    def size(self, types: Mapping[str, str]) -> int:
        """Bytes of the file, if its tensors have these types."""
        return size_of(self.header, types, self.keys)

    def write(self, output: Path) -> None:
        """Make the file. Raises LabError with llama.cpp's own reason."""
        self.params.dry_run = False
        with written_whole(output) as part:
            self._run(part)

    def _run(self, target: Path) -> None:
        messages.clear()
        if llama_cpp.llama_model_quantize(
            str(gguf_files(self.source)[0]).encode(),
            str(target).encode(),
            ctypes.byref(self.params),
        ):
            raise LabError(
                f"{self.source}: llama.cpp cannot make {self.type_} of it:"
                f" {said('it gave no reason')}"
            )


def quantize(
    source: Path,
    type_: str,
    output: Path,
    imatrix: Path | None = None,
    tensors: Mapping[str, str] | None = None,
    doing: str = "",
) -> None:
    """Write ``source``, a GGUF file or a folder of its parts, in another quantization type.

    ``tensors``: types of single tensors, by patterns of their names. ``doing``: what the message
    with the size of the file says before it.

    From F16 to F16 or a finer type nothing is lost. Raises LabError as ``Quantizer`` does.
    """
    quantizer = Quantizer(source, type_, imatrix, tensors or {})
    size = quantizer.size(quantizer.types())
    check_space(output, size)
    say(f"{doing or f'quantizing to {type_}: {output}'}, {size:,} bytes")
    quantizer.write(output)


def overrides(tensors: Mapping[str, str]) -> Any:
    """Types of tensors, by patterns of their names, as llama.cpp takes them."""
    override = llama_cpp.llama_model_tensor_override
    rows = [override(p.encode(), GGMLQuantizationType[type_]) for p, type_ in tensors.items()]
    return (override * (len(rows) + 1))(*rows)


def size_of(header: Header, types: Mapping[str, str], added: Iterable[Any]) -> int:
    """Bytes of the file that llama.cpp makes of a source with this header.

    ``types``: the type that each tensor gets. ``added``: keys of the file's header, as passed.
    """
    number = 4 + 4  # bytes: the type, and 32 bits
    values = {row.key: 4 + 8 + len(row.value.val_str) if row.tag == STRING else number
              for row in added if row.key}  # fmt: skip
    values |= {key.encode(): number for key in SET}
    kept = (n for k, n in header.keys.items() if k not in LEFT_OUT and k.encode() not in values)
    size = 24 + sum(kept) + sum(8 + len(key) + value for key, value in values.items())
    for tensor in header.tensors:
        dimensions = max([1, *(i for i, n in enumerate(tensor.shape, 1) if n > 1)])
        size += 8 + len(tensor.name.encode()) + 4 + 8 * dimensions + 4 + 8
    size += -size % ALIGNMENT
    for tensor in header.tensors:
        block, bytes_ = GGML_QUANT_SIZES[GGMLQuantizationType[types[tensor.name]]]
        taken = prod(tensor.shape) // block * bytes_
        size += taken + -taken % ALIGNMENT
    return size


def check_fits(matrices: Imatrix, header: Header, name: str) -> None:
    """Raise LabError unless a matrix has a mean square for each input of the model's tensors."""
    sizes = {t.name: t.shape[0] * (t.shape[2] if len(t.shape) > 2 else 1) for t in header.tensors}
    for tensor, inputs in matrices.found.items():
        if (size := sizes.get(tensor)) != inputs.means.size:
            has = f"has {size} inputs" if size else "is not there"
            raise LabError(f"{name}: it has {inputs.means.size} inputs of {tensor}, which {has}")


def as_passed(means: dict[str, NDArray[np.float32]]) -> Any:
    """Mean squares as llama.cpp takes them; the array refers to their memory."""
    data = llama_cpp.llama_model_imatrix_data
    pointer = ctypes.POINTER(ctypes.c_float)
    rows = [data(n.encode(), v.ctypes.data_as(pointer), v.size) for n, v in means.items()]
    return (data * (len(rows) + 1))(*rows)


def matrix_told(imatrix: Path, matrices: Imatrix) -> dict[str, str | int]:
    """What a file's header says of the importance matrix that it was made with."""
    facts: dict[str, str | int] = {
        "file": imatrix.name,
        "dataset": without_folders(matrices.dataset),
        "entries_count": len(matrices.found),
        "chunks_count": matrices.chunks,
    }
    return {f"quantize.imatrix.{key}": value for key, value in facts.items()}


def overrides_of_keys(told: Mapping[str, str | int]) -> Any:
    """Keys of a file's header as llama.cpp takes them: texts of at most LONGEST bytes, numbers."""
    override = llama_cpp.llama_model_kv_override
    rows = (override * (len(told) + 1))()
    for row, (key, value) in zip(rows, told.items(), strict=False):
        row.key = key.encode()
        row.tag = STRING if isinstance(value, str) else INTEGER
        if isinstance(value, str):
            row.value.val_str = value.encode()[:LONGEST].decode(errors="ignore").encode()
        else:
            row.value.val_i64 = value
    return rows


def file_type(type_: str) -> int:
    """llama.cpp's number for a quantization type."""
    prefix = "LLAMA_FTYPE_ALL_" if type_ == "F32" else "LLAMA_FTYPE_MOSTLY_"
    number: int = getattr(llama_cpp, prefix + type_)
    return number


def main(arguments: argparse.Namespace) -> None:
    tensors = json.loads(arguments.tensors)
    quantize(arguments.source, arguments.type, arguments.output, arguments.imatrix, tensors)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, required=True, help="a GGUF file")
    parser.add_argument("--imatrix", type=Path, nargs="?", help="an importance matrix, as GGUF")
    parser.add_argument("--type", required=True, help="the quantization type to make")
    parser.add_argument("--tensors", default="{}", help="types by patterns of names, as JSON")
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)
