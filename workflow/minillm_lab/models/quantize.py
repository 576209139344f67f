"""Quantize a GGUF file with llama.cpp's own quantizer, in process.

With an importance matrix, the file says in its header which, as llama.cpp's own tool has it.
"""

import argparse
import ctypes
import os
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
from numpy.typing import NDArray

from minillm_lab.header import Header, read_gguf
from minillm_lab.jobs.command import run, say
from minillm_lab.jobs.errors import LabError
from minillm_lab.jobs.files import check_space, gguf_files, written_whole
from minillm_lab.models.imatrix import Imatrix, read_imatrix
from minillm_lab.runtimes.llama_library import messages, said, said_by_llama
from minillm_lab.wording import without_folders

INTEGER, STRING = 0, 3  # enum llama_model_kv_override_type
LONGEST = 127  # bytes of a text there


def quantize(source: Path, type_: str, output: Path, imatrix: Path | None = None) -> None:
    """Write ``source``, a GGUF file or a folder of its parts, in another quantization type.

    From F16 to F16 or a finer type nothing is lost. Raises LabError with llama.cpp's own reason,
    or if the importance matrix is of another model.
    """
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = file_type(type_)
    params.allow_requantize = True  # a source that ships only a quantized GGUF is unpacked
    if imatrix:
        matrices = read_imatrix(imatrix)
        check_fits(matrices, read_gguf(source), f"{imatrix}: it is no matrix of {source}")
        means = {name: inputs.means for name, inputs in matrices.found.items()}
        params.imatrix, params.kv_overrides = as_passed(means), told(imatrix, matrices)
    params.nthread = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0

    def run(target: Path) -> None:
        messages.clear()
        if llama_cpp.llama_model_quantize(
            str(gguf_files(source)[0]).encode(), str(target).encode(), ctypes.byref(params)
        ):
            raise LabError(
                f"{source}: llama.cpp cannot make {type_} of it: {said('it gave no reason')}"
            )

    params.dry_run = True  # it only says how large the file will be
    run(output)
    if said_by_llama("(will require an imatrix)"):
        raise LabError(
            f"{source}: llama.cpp makes {type_} of it only with an importance matrix; take imatrix:"
            " own"
        )
    check_space(output, int(float(said_by_llama(r"quant size +=\s+([\d.]+) MiB") or 0) * 2**20))
    params.dry_run = False
    with written_whole(output) as part:
        run(part)


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
    say(f"quantizing to {arguments.type}: {arguments.output}")
    quantize(arguments.source, arguments.type, arguments.output, arguments.imatrix)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, required=True, help="a GGUF file")
    parser.add_argument("--imatrix", type=Path, nargs="?", help="an importance matrix, as GGUF")
    parser.add_argument("--type", required=True, help="the quantization type to make")
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)
