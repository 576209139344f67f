"""Safetensors for Transformers, from the unquantized GGUF of a model that ships none."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import transformers
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from minillm_lab.ggml import gguf as gguf_package
from minillm_lab.header import read_header
from minillm_lab.jobs.command import run, say
from minillm_lab.jobs.errors import LabError, first_line
from minillm_lab.jobs.files import check_space, written_whole

DTYPES = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32}


class Reader(gguf_package.GGUFReader):  # type: ignore[misc] # which has no types
    """A reader of plain arrays, whose slices, one for each word, take less time than a map's."""

    @property
    def data(self) -> Any:
        return self.plain

    @data.setter
    def data(self, mapped: Any) -> None:
        self.plain = np.asarray(mapped)


@contextmanager
def read_once() -> Iterator[None]:
    """Let Transformers read a GGUF's header once.

    It makes a reader, which takes seconds for a vocabulary, for the config, the weights and the
    tokenizer each, and the map of all tensors' names for each module anew.
    """
    reader, names = cache(Reader), cache(gguf_package.get_tensor_name_map)
    with (
        patch.object(gguf_package, "GGUFReader", reader),
        patch.object(gguf_package, "get_tensor_name_map", names),
    ):
        yield


def write_safetensors(gguf: Path, output: Path) -> None:
    """Write an unquantized GGUF as a folder of safetensors of its own type, with its tokenizer.

    Raises LabError if Transformers does not know the architecture, or the GGUF is in parts.
    """
    if gguf.is_dir():
        raise LabError(
            f"{gguf}: Transformers reads no GGUF in parts; take llama.cpp for this variant"
        )
    check_space(output, gguf.stat().st_size)
    dtype = DTYPES[read_header(gguf).type]
    transformers.utils.logging.disable_progress_bar()
    source = {
        "pretrained_model_name_or_path": gguf.parent,
        "gguf_file": gguf.name,
        "local_files_only": True,
        "trust_remote_code": False,
    }
    try:
        with read_once():
            model = AutoModelForCausalLM.from_pretrained(
                **source, quantization_config=GgufConfig(dequantize=True), dtype=dtype
            )
            tokenizer = AutoTokenizer.from_pretrained(**source)
    except (OSError, ValueError, KeyError, NotImplementedError) as error:
        raise LabError(f"{gguf}: Transformers cannot read it: {first_line(error)}") from error
    try:
        with written_whole(output) as part:
            model.save_pretrained(part)
            tokenizer.save_pretrained(part)
    except SafetensorError as error:
        raise LabError(f"cannot write {output}: {first_line(error)}") from error


def main(arguments: argparse.Namespace) -> None:
    say(f"writing {arguments.gguf} as safetensors")
    write_safetensors(arguments.gguf, arguments.output)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gguf", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)
