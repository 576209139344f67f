"""A model's safetensors converted for OpenVINO, as they are or compressed by NNCF.

The weights keep the type of the source until they are compressed. Whatever else is constant, such
as scales of norms, is float32.
"""

import argparse
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, Cache
from transformers.cache_utils import DynamicLayer

from minillm_lab.jobs.command import run, say
from minillm_lab.jobs.errors import LabError, first_line
from minillm_lab.jobs.files import OPENVINO, check_space, weight_files, written_whole
from minillm_lab.runtimes.openvino_library import openvino

INPUTS = ("input_ids", "attention_mask", "position_ids", "logits_to_keep")
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")
PAST, NEW = 3, 2  # tokens with which the model is traced


class WithCache(torch.nn.Module):
    """A model whose cache of keys and values is among its inputs and outputs."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        position_ids: torch.Tensor,
        logits_to_keep: torch.Tensor,
        *past: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        layers = []
        for keys, values in zip(past[::2], past[1::2], strict=True):
            layer = DynamicLayer()
            layer.lazy_initialization(keys, values)
            layer.keys, layer.values = keys, values
            layers.append(layer)
        places = torch.arange(attention_mask.shape[1])
        seen = places[None, None, None, :] <= position_ids[:, None, :, None]
        output = self.model(
            input_ids,
            attention_mask=seen & attention_mask[:, None, None, :].bool(),
            position_ids=position_ids,
            past_key_values=Cache(layers=layers),
            use_cache=True,
            logits_to_keep=logits_to_keep,
        )
        kept = output.past_key_values.layers
        return output.logits, *(t for layer in kept for t in (layer.keys, layer.values))


def converted(safetensors: Path) -> Any:
    """OpenVINO's model of a folder of safetensors.

    Raises ValueError for a model with other layers than those that see every token before.
    """
    from openvino.frontend.pytorch.patch_model import __make_16bit_traceable

    model = AutoModelForCausalLM.from_pretrained(
        safetensors,
        dtype="auto",
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
    ).eval()
    shapes = shapes_of_cache(model)
    # Weights of 16 bits stay so, and are computed with in float32.
    __make_16bit_traceable(model)
    places = torch.arange(PAST, PAST + NEW)[None]
    example = (
        torch.ones((1, NEW), dtype=torch.int64),
        torch.ones((1, PAST + NEW), dtype=torch.int64),
        places,
        torch.tensor([NEW - 1]),
        *(torch.zeros(1, heads, PAST, size) for heads, size in shapes),
    )
    with torch.no_grad():
        found = openvino.convert_model(WithCache(model), example_input=example)
    with_state(found, shapes)
    return found


def shapes_of_cache(model: Any) -> list[tuple[int, int]]:
    """Heads and the size of each, of the keys and the values of every layer in turn."""
    config = model.config.get_text_config()
    windows = "sliding_attention" if getattr(config, "sliding_window", None) else "full_attention"
    kinds = {*(getattr(config, "layer_types", None) or [windows])}
    kinds |= {"state"} if model._is_stateful else set()
    if others := kinds - {"full_attention"}:
        raise ValueError(f"its layers of {sorted(others)[0]} keep no cache of every token")
    if any(getattr(config, key, None) for key in EXPERTS):
        raise ValueError("it is a mixture of experts")
    rope = str(getattr(config, "rope_parameters", None))
    if any(kind in rope for kind in ("dynamic", "longrope")):
        raise ValueError("it turns keys by the length so far")
    if config._attn_implementation != "sdpa":
        raise ValueError("its attention is not PyTorch's own")
    with torch.no_grad():
        layers = model(torch.tensor([[1]]), use_cache=True).past_key_values.layers
    return [(t.shape[1], t.shape[3]) for layer in layers for t in (layer.keys, layer.values)]


def with_state(model: Any, shapes: list[tuple[int, int]]) -> None:
    """Turn the inputs and outputs of a model that are its cache into a state, in place.

    The CPU computes attention with its own cache only where the model looks so: keys and values
    are chosen by ``beam_idx``, and the state begins with no token.
    """
    from openvino import opset13
    from openvino._offline_transformations import apply_make_stateful_transformation

    inputs, outputs = model.inputs, model.outputs
    if len(inputs) != len(INPUTS) + len(shapes) or len(outputs) != 1 + len(shapes):
        raise ValueError("it needs other inputs than tokens and their places")
    for port, name in zip(inputs, INPUTS, strict=False):
        port.get_tensor().set_names({name})
        port.get_node().set_friendly_name(name)
    outputs[0].get_tensor().set_names({"logits"})
    beam = opset13.parameter([-1], np.int32, name="beam_idx")
    beam.output(0).get_tensor().set_names({"beam_idx"})
    pairs = {}
    wanted = {port: openvino.PartialShape([-1, -1]) for port in inputs[:3]}
    cached = zip(inputs[len(INPUTS) :], outputs[1:], shapes, strict=True)
    for i, (past, present, (heads, size)) in enumerate(cached):
        past.get_tensor().set_names({f"past.{i}"})
        present.get_tensor().set_names({f"present.{i}"})
        pairs[f"past.{i}"] = f"present.{i}"
        wanted[past] = openvino.PartialShape([-1, heads, -1, size])
        readers = past.get_target_inputs()
        chosen = opset13.gather(past, beam, opset13.constant(0))
        for reader in readers:
            reader.replace_source_output(chosen.output(0))
    model.add_parameters([beam])
    model.reshape(wanted)
    apply_make_stateful_transformation(model, pairs)
    batch = opset13.gather(
        opset13.shape_of(model.input("input_ids"), "i64"),
        opset13.constant([0]),
        opset13.constant(0),
    )
    for operation in model.get_ops():
        if operation.get_type_name() == "ReadValue":
            heads, size = (operation.get_output_partial_shape(0)[i].get_length() for i in (1, 3))
            rest = [opset13.constant(np.array([n], np.int64)) for n in (heads, 0, size)]
            shape = opset13.concat([batch, *rest], 0)
            empty = opset13.broadcast(opset13.constant(0.0, np.float32), shape)
            operation.set_arguments([empty])
    model.validate_nodes_and_infer_types()


def compressed(model: Any, form: str) -> Any:
    """A model with the weights of a form: ``openvino-int4_sym-64``."""
    import nncf

    nncf.set_log_level(logging.ERROR)
    mode, _, group = form.partition("-")[2].partition("-")
    if mode == "unquantized":
        return model
    if mode == "int8":
        return nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_ASYM)
    return nncf.compress_weights(
        model,
        mode=nncf.CompressWeightsMode(mode),
        group_size=int(group),
        ratio=1.0,
        all_layers=False,
        backup_mode=nncf.BackupMode.INT8_ASYM,
    )


def pack(safetensors: Path, form: str, output: Path) -> None:
    """Convert a folder of safetensors. Raises LabError if OpenVINO or NNCF cannot."""
    check_space(output, sum(file.stat().st_size for file in weight_files(safetensors)))
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    warnings.simplefilter("ignore")  # those of tracing
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            safetensors, local_files_only=True, trust_remote_code=False
        )
        model = compressed(converted(safetensors), form)
        with written_whole(output) as part:
            part.mkdir()
            openvino.save_model(model, part / OPENVINO[0], compress_to_fp16=False)
            tokenizer.save_pretrained(part)
    except Exception as error:  # the libraries raise errors of every kind
        said = first_line(error).rstrip(".")
        way_out = "; name another group, which divides every row" if "group size" in said else ""
        raise LabError(f"{safetensors}: {form} cannot be made: {said}{way_out}") from error


def main(arguments: argparse.Namespace) -> None:
    say(f"converting {arguments.safetensors} to {arguments.form}")
    pack(arguments.safetensors, arguments.form, arguments.output)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--safetensors", type=Path, required=True)
    parser.add_argument("--form", required=True, help="such as openvino-int8")
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)
