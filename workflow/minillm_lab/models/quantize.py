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
from math import prod
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from numpy.typing import NDArray

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
LEFT_OUT = ("split.no", "split.count", "split.tensors.count")
TENSOR = r"\[ *\d+/ *\d+\] (.+?) +- \[[^]]*\], type = +(\w+), size = +[\d.]+ MiB"
MADE_INTO = r"(?: -> +[\d.]+ MiB \((\w+)\))?"  # behind a tensor that will have another type


def quantize(
    source: Path,
    type_: str,
    output: Path,
    imatrix: Path | None = None,
    tensors: Mapping[str, str] | None = None,
    doing: str = "",
) -> None:
    """Write ``source``, a GGUF file or a folder of its parts, in another quantization type.

    ``tensors``: types of single tensors, by patterns of their names (``models.mixture``).
    ``doing``: what the message with the size of the file says before it.

    From F16 to F16 or a finer type nothing is lost. Raises LabError with llama.cpp's own reason,
    if the importance matrix is of another model, or if a tensor would get another type than asked.
    """
    header, tensors = read_gguf(source), tensors or {}
    means, keys = dict[str, NDArray[np.float32]](), list[Any]()
    mixture.asked(tensors, header)
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = file_type(type_)
    params.allow_requantize = True  # a source that ships only a quantized GGUF is unpacked
    if imatrix:
        matrices = read_imatrix(imatrix)
        check_fits(matrices, header, f"{imatrix}: it is no matrix of {source}")
        means = {name: inputs.means for name, inputs in matrices.found.items()}
        keys = told(imatrix, matrices)
        params.imatrix, params.kv_overrides = as_passed(means), keys
    if tensors:
        params.tt_overrides = overrides(tensors)
    params.nthread = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0

    def run(target: Path) -> None:
        messages.clear()
        if llama_cpp.llama_model_quantize(
            str(gguf_files(source)[0]).encode(), str(target).encode(), ctypes.byref(params)
        ):
            raise LabError(
                f"{source}: llama.cpp cannot make {type_} of it: {said('it gave no reason')}"
            )

    params.dry_run = True  # it only says which type each tensor gets
    run(output)
    text = "".join(messages)
    made = {name: (new or old).upper() for name, old, new in re.findall(TENSOR + MADE_INTO, text)}
    types = {tensor.name: made.get(tensor.name, tensor.type) for tensor in header.tensors}
    overridden = re.findall(r": (\S+) +- applying manual override", text)
    fell_back = re.findall(r"warning: (\S+) +- ncols", text)
    mixture.check(tensors, header, types, overridden, fell_back, means)
    if said_by_llama("(will require an imatrix)"):
        made_so = f"{type_} with these tensors" if tensors else type_
        raise LabError(
            f"{source}: llama.cpp makes {made_so} of it only with an importance matrix; take"
            " imatrix: own"
        )
    size = size_of(header, types, keys)
    check_space(output, size)
    say(f"{doing or f'quantizing to {type_}: {output}'}, {size:,} bytes")
    params.dry_run = False
    with written_whole(output) as part:
        run(part)


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


def told(imatrix: Path, matrices: Imatrix) -> Any:
    """The keys of the header that say which importance matrix was used."""
    facts = {
        "file": imatrix.name,
        "dataset": without_folders(matrices.dataset),
        "entries_count": len(matrices.found),
        "chunks_count": matrices.chunks,
    }
    override = llama_cpp.llama_model_kv_override
    rows = (override * (len(facts) + 1))()
    for row, (key, value) in zip(rows, facts.items(), strict=False):
        row.key = f"quantize.imatrix.{key}".encode()
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
