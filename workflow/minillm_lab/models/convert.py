"""An unquantized GGUF (F16, BF16 or F32) of a model, from safetensors or from another GGUF.

Safetensors go through llama.cpp's own converter, taken from the source archive of the installed
llama-cpp-python, so that converter and runtime are one commit.
"""

import argparse
import os
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path

from minillm_lab.jobs.command import log, run, say
from minillm_lab.jobs.errors import LabError
from minillm_lab.jobs.files import check_space, gguf_files, written_whole
from minillm_lab.jobs.watcher import dies_with
from minillm_lab.models.dither import check_steps, dither
from minillm_lab.models.pip import pip_download
from minillm_lab.models.quantize import quantize
from minillm_lab.runtimes import size_in

DTYPES = {"F16": "float16", "BF16": "bfloat16", "F32": "float32"}
PARTS = ("convert_hf_to_gguf.py", "conversion/", "gguf-py/gguf/")  # of llama.cpp


def unpack_converter(output: Path) -> None:
    """Download the source archive of the installed llama-cpp-python; keep only its converter."""
    pinned = f"llama-cpp-python=={version('llama-cpp-python')}"
    say(f"fetching llama.cpp's converter from the source archive of {pinned}")
    with written_whole(output) as part, tempfile.TemporaryDirectory() as folder:
        with tarfile.open(
            pip_download(pinned, Path(folder), "--no-binary=llama-cpp-python")
        ) as archive:
            for member in archive:
                inside = member.name.partition("/vendor/llama.cpp/")[2]
                if member.isfile() and inside.startswith(PARTS):
                    member.name = inside
                    archive.extract(member, part, filter="data")
        if not (part / "convert_hf_to_gguf.py").exists():
            raise LabError(
                f"the source archive of {pinned} has no convert_hf_to_gguf.py; install another"
                " version"
            )


def convert(safetensors: Path, converter: Path, output: Path, type_: str = "F16") -> None:
    """Convert a folder of safetensors to an unquantized GGUF of ``type_``.

    Raises LabError with the last line of the converter's output.

    The converter would let a tokenizer run code of its own (``trust_remote_code``). The folder
    holds none, and the converter cannot see the hub's cache, where there may be some.
    """
    say(f"converting {safetensors} to {type_}")
    check_space(output, size_in(safetensors, DTYPES[type_]))
    script = converter.resolve() / "convert_hf_to_gguf.py"
    with written_whole(output) as part, tempfile.TemporaryDirectory() as nothing:
        command = [
            sys.executable, str(script), str(safetensors.resolve()),
            "--outtype", type_.lower(), "--outfile", str(part.resolve()),
        ]  # fmt: skip
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=dies_with(os.getpid()),
            env=os.environ
            | {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": nothing, "HF_MODULES_CACHE": nothing}
            | {"PYTHONPATH": str(converter / "gguf-py")},
        )
        log.info("%s", done.stdout)
        if done.returncode:
            last = (done.stdout.strip().splitlines() or ["it gave no reason"])[-1]
            raise LabError(f"{safetensors}: llama.cpp cannot convert it: {last}")


def unpack(source: Path, output: Path, share: float = 0, type_: str = "F16") -> None:
    """Write a GGUF in an unquantized type; if ``share`` is not 0, dither its F16 weights."""
    doing = f"unpacking {source} to {type_}"
    if not share:
        quantize(source, type_, output, doing=doing)
        return
    check_steps(source)
    with written_whole(output) as part:
        quantize(source, "F16", part, doing=doing)
        say(f"moving each weight by up to ± {share / 2:g} of its step")
        dither(source, part, share)


def main(arguments: argparse.Namespace) -> None:
    if arguments.unpack_converter:
        unpack_converter(arguments.output)
    elif not gguf_files(arguments.source):
        convert(arguments.source, arguments.converter, arguments.output, arguments.type)
    else:
        unpack(arguments.source, arguments.output, arguments.dither, arguments.type)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument("--source", type=Path, help="a folder of safetensors, or a GGUF file")
    task.add_argument("--unpack-converter", action="store_true", help="make the converter folder")
    parser.add_argument(
        "--converter", type=Path, nargs="?", help="the converter folder, for safetensors"
    )
    parser.add_argument("--type", choices=DTYPES, default="F16", help="the type to make")
    parser.add_argument(
        "--dither", type=float, default=0, help="share of a step by which a GGUF's weights move"
    )
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)
