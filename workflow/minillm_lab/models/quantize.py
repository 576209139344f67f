"""Quantize a GGUF file with llama.cpp's own quantizer, in process."""

import argparse
import ctypes
import os
from pathlib import Path

import llama_cpp

from minillm_lab.jobs.command import run, say
from minillm_lab.jobs.errors import LabError
from minillm_lab.jobs.files import check_space, gguf_files, written_whole
from minillm_lab.runtimes.llama_library import messages, said, said_by_llama


def quantize(source: Path, type_: str, output: Path) -> None:
    """Write ``source``, a GGUF file or a folder of its parts, in another quantization type.

    From F16 to F16 or a finer type nothing is lost. Raises LabError with llama.cpp's own reason.
    """
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = file_type(type_)
    params.allow_requantize = True  # a source that ships only a quantized GGUF is unpacked
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
    check_space(output, int(float(said_by_llama(r"quant size +=\s+([\d.]+) MiB") or 0) * 2**20))
    params.dry_run = False
    with written_whole(output) as part:
        run(part)


def file_type(type_: str) -> int:
    """llama.cpp's number for a quantization type."""
    prefix = "LLAMA_FTYPE_ALL_" if type_ == "F32" else "LLAMA_FTYPE_MOSTLY_"
    number: int = getattr(llama_cpp, prefix + type_)
    return number


def main(arguments: argparse.Namespace) -> None:
    say(f"quantizing to {arguments.type}: {arguments.output}")
    quantize(arguments.source, arguments.type, arguments.output)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, required=True, help="a GGUF file")
    parser.add_argument("--type", required=True, help="the quantization type to make")
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)
