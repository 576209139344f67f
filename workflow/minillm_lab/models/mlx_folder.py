"""Weights for MLX, from a model's safetensors: in one type, or quantized in groups of a row."""

import argparse
import re
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx import nn
from mlx.utils import tree_map
from mlx_lm.utils import load_model, quantize_model, save_config, save_model
from numpy.typing import NDArray
from transformers import AutoConfig, AutoTokenizer

from minillm_lab.jobs.command import run, say
from minillm_lab.jobs.errors import LabError, first_line
from minillm_lab.jobs.files import check_space, weight_files, written_whole
from minillm_lab.models.agreement import check_agreement

FORM = re.compile(r"mlx-(?:b(?P<bits>\d)-g(?P<group>\d+)-)?(?P<dtype>\w+)")
MOST = 0.03  # nats that rounding to 16 bits may cause
LOCAL_BASE = ("gemma3", "gemma3_text")  # with bases for two kinds of layers


def told_of(config: Any) -> dict[str, Any]:
    """What Transformers knows of a model, where and as mlx-lm looks for it.

    mlx-lm does not read ``rope_parameters``, where Transformers 5 writes the base and the scaling
    of positions, and has defaults of its own: it would take those without a word. Raises ValueError
    for what it has no place for.
    """
    found: dict[str, Any] = {"tie_word_embeddings": config.tie_word_embeddings}
    rope = getattr(config, "rope_parameters", None) or {}
    if isinstance(rope.get("sliding_attention"), dict) and config.model_type in LOCAL_BASE:
        found["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        rope = rope["full_attention"]
    if any(isinstance(value, dict) for value in rope.values()):
        raise ValueError("mlx-lm does not read how its kinds of layers turn keys")
    found |= {key: rope[key] for key in ("rope_theta", "partial_rotary_factor") if rope.get(key)}
    scaling = {key: value for key, value in rope.items() if key not in found}
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
        known = AutoConfig.from_pretrained(
            safetensors, local_files_only=True, trust_remote_code=False
        )
        model, config = load_model(safetensors, lazy=True, model_config=told_of(known))
        check_agreement(safetensors, partial(logits_of, model), "auto", MOST)

        def turned(values: mx.array) -> mx.array:
            return values.astype(dtype) if mx.issubdtype(values.dtype, mx.floating) else values

        model.update(tree_map(turned, model.parameters()))
        if asked["bits"]:
            model, config = quantize_model(model, config, int(asked["group"]), int(asked["bits"]))
            check_group(model, int(asked["group"]))
        config["dtype"] = asked["dtype"]
        tokenizer = AutoTokenizer.from_pretrained(
            safetensors, local_files_only=True, trust_remote_code=False
        )
        with written_whole(output) as part:
            part.mkdir()
            save_model(part, model)
            save_config(config, part / "config.json")
            tokenizer.save_pretrained(part)
    except (Exception, SystemExit) as error:  # the library raises errors of every kind, and exits
        raise LabError(f"{safetensors}: {form} cannot be made: {first_line(error)}") from error


def logits_of(model: Any, ids: list[int]) -> NDArray[np.float32]:
    return np.array(model(mx.array([ids]))[0].astype(mx.float32))


def check_group(model: Any, group: int) -> None:
    """Raise ValueError if rows that a group does not divide were left unquantized."""
    for name, layer in model.named_modules():
        if type(layer) in (nn.Linear, nn.Embedding) and layer.weight.shape[-1] % group:
            raise ValueError(
                f"groups of {group} do not divide the rows of {layer.weight.shape[-1]} of {name};"
                " name another group"
            )


def main(arguments: argparse.Namespace) -> None:
    say(f"writing {arguments.safetensors} as {arguments.form}")
    write_folder(arguments.safetensors, arguments.form, arguments.output)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--safetensors", type=Path, required=True)
    parser.add_argument("--form", required=True, help="such as mlx-b4-g64-float16")
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)
