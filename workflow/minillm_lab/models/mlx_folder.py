"""Weights for MLX, from a model's safetensors: in one type, or quantized in groups of a row."""

import argparse
import json
import re
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_map
from mlx_lm.utils import load_model, quantize_model, save_config, save_model
from transformers import AutoTokenizer

from minillm_lab.jobs.command import run, say
from minillm_lab.jobs.errors import LabError, first_line
from minillm_lab.jobs.files import check_space, weight_files, written_whole

FORM = re.compile(r"mlx-(?:b(?P<bits>\d)-g(?P<group>\d+)-)?(?P<dtype>\w+)")
LOCAL_BASE = ("gemma3", "gemma3_text")  # with bases for two kinds of layers


def rope_of(config: dict[str, Any]) -> dict[str, Any]:
    """What a config says of positions, where mlx-lm looks for it.

    Transformers 5 writes it into ``rope_parameters``, which mlx-lm does not read: it would take a
    base of its own without a word. Raises ValueError for what mlx-lm has no place for.
    """
    told = config.get("rope_parameters")
    if not isinstance(told, dict):
        return {}
    found = {}
    if isinstance(told.get("sliding_attention"), dict) and config["model_type"] in LOCAL_BASE:
        found["rope_local_base_freq"] = told["sliding_attention"]["rope_theta"]
        told = told["full_attention"]
    if any(isinstance(value, dict) for value in told.values()):
        raise ValueError("mlx-lm does not read how its kinds of layers turn keys")
    found |= {key: told[key] for key in ("rope_theta", "partial_rotary_factor") if told.get(key)}
    scaling = {key: value for key, value in told.items() if key not in found}
    if scaling.get("rope_type", "default") != "default":
        found["rope_scaling"] = scaling
    return found


def write_folder(safetensors: Path, form: str, output: Path) -> None:
    """Write a folder of safetensors as MLX reads it, in a form named as ``MlxVariant`` does.

    Raises LabError if mlx-lm does not know the architecture, or cannot quantize it so.
    """
    asked = FORM.fullmatch(form)
    assert asked
    dtype = getattr(mx, asked["dtype"])
    check_space(output, sum(file.stat().st_size for file in weight_files(safetensors)))
    mx.set_default_device(mx.cpu)
    try:
        told = json.loads((safetensors / "config.json").read_bytes())
        model, config = load_model(safetensors, lazy=True, model_config=rope_of(told))

        def turned(values: mx.array) -> mx.array:
            return values.astype(dtype) if mx.issubdtype(values.dtype, mx.floating) else values

        model.update(tree_map(turned, model.parameters()))
        if asked["bits"]:
            model, config = quantize_model(model, config, int(asked["group"]), int(asked["bits"]))
        config["dtype"] = asked["dtype"]
        tokenizer = AutoTokenizer.from_pretrained(
            safetensors, local_files_only=True, trust_remote_code=False
        )
        with written_whole(output) as part:
            part.mkdir()
            save_model(part, model)
            save_config(config, part / "config.json")
            tokenizer.save_pretrained(part)
    except Exception as error:  # the library raises errors of every kind
        raise LabError(f"{safetensors}: {form} cannot be made: {first_line(error)}") from error


def main(arguments: argparse.Namespace) -> None:
    say(f"writing {arguments.safetensors} as {arguments.form}")
    write_folder(arguments.safetensors, arguments.form, arguments.output)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--safetensors", type=Path, required=True)
    parser.add_argument("--form", required=True, help="such as mlx-b4-g64-float16")
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)
