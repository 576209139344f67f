"""Weights quantized by bitsandbytes or torchao, as a folder of safetensors that Transformers reads.

Linear layers are quantized, but not the output, nor the embedding. What stays is stored in the
source's own type.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    TorchAoConfig,
)

from minillm_lab.jobs.command import run, say
from minillm_lab.jobs.errors import LabError, first_line
from minillm_lab.jobs.files import check_space, weight_files, written_whole
from minillm_lab.runtimes import tensors


def config_of(method: str) -> Any:
    """Transformers' settings for a method; they import its library."""
    if method == "bnb-nf4":
        return BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32
        )
    if method == "bnb-int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    from torchao.quantization import Int8WeightOnlyConfig

    return TorchAoConfig(Int8WeightOnlyConfig())


def pack(safetensors: Path, form: str, output: Path) -> None:
    """Quantize a folder of safetensors by a method of ``libraries.PACKED``.

    Raises LabError if Transformers or the library cannot.
    """
    check_space(output, sum(file.stat().st_size for file in weight_files(safetensors)))
    tensors.quiet()
    transformers.utils.logging.disable_progress_bar()
    try:
        model = AutoModelForCausalLM.from_pretrained(
            safetensors,
            quantization_config=config_of(form),
            dtype="auto",
            device_map="cpu",
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
        )
        tokenizer = AutoTokenizer.from_pretrained(
            safetensors, local_files_only=True, trust_remote_code=False
        )
        with written_whole(output) as part:
            model.save_pretrained(part)
            tokenizer.save_pretrained(part)
            with torch.inference_mode():
                model(torch.tensor([[0]]))  # some layers can be stored and not computed with
    except Exception as error:  # the libraries raise errors of every kind
        raise LabError(f"{safetensors}: {form} cannot be made: {first_line(error)}") from error


def main(arguments: argparse.Namespace) -> None:
    say(f"quantizing {arguments.safetensors} by {arguments.form}")
    pack(arguments.safetensors, arguments.form, arguments.output)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--safetensors", type=Path, required=True)
    parser.add_argument("--form", required=True, help="such as bnb-nf4")
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)
