"""What bitsandbytes and torchao store, and what the facts say of it."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from minillm_lab.experiment.libraries import PACKED, library_of
from minillm_lab.jobs.errors import LabError
from minillm_lab.models.facts import facts_of
from minillm_lab.models.pack import pack
from minillm_lab.runtimes import Options
from minillm_lab.runtimes.transformers import Transformers
from tiny_model import write_tiny_gguf


@pytest.mark.parametrize("form", PACKED)
def test_every_weight_is_counted_once_with_its_scales(
    form: str, tiny_safetensors: Path, tmp_path: Path
) -> None:
    pack(tiny_safetensors, form, tmp_path / form)
    facts, whole = facts_of(tmp_path / form, tiny_safetensors), facts_of(tiny_safetensors)
    assert facts["parameters"] == whole["parameters"]
    stored = load_file(tmp_path / form / "model.safetensors")
    held = sum(tensor.numel() * tensor.element_size() for tensor in stored.values())
    assert facts["bits_per_weight"] * facts["parameters"] / 8 == pytest.approx(held, rel=1e-3)


def test_a_second_copy_that_is_not_stored_is_left_out(
    tiny_safetensors: Path, tmp_path: Path
) -> None:
    source = shutil.copytree(tiny_safetensors, tmp_path / "source")
    tensors = load_file(source / "model.safetensors")
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    save_file(tensors, source / "model.safetensors", {"format": "pt"})
    pack(source, "bnb-nf4", tmp_path / "bnb-nf4")
    facts = facts_of(tmp_path / "bnb-nf4", source)
    assert facts["parameters"] == facts_of(tiny_safetensors)["parameters"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_all_but_the_positions_is_computed_in_the_type_that_was_asked_for(
    dtype: str, tiny_safetensors: Path, tmp_path: Path
) -> None:
    pack(tiny_safetensors, "torchao-int8", tmp_path / "torchao-int8")
    runtime, options = Transformers(), Options(threads=1, context=64, dtype=dtype)
    runtime.prepare(tmp_path / "torchao-int8", options)
    runtime.load(tmp_path / "torchao-int8", options)
    assert runtime.facts()["settings"]["dtype"] == dtype
    assert runtime.model.model.embed_tokens.weight.dtype == getattr(torch, dtype)
    assert runtime.model.model.rotary_emb.inv_freq.dtype == torch.float32


def test_what_can_be_stored_and_not_computed_is_one_line(tmp_path: Path) -> None:
    from minillm_lab.models.safetensors import write_safetensors

    write_tiny_gguf(tmp_path / "odd.gguf", width=128, feed=240)
    write_safetensors(tmp_path / "odd.gguf", tmp_path / "odd")
    try:
        pack(tmp_path / "odd", "bnb-nf4", tmp_path / "bnb-nf4")
    except LabError as error:  # where the CPU has bfloat16, whose kernel is stricter
        assert "bnb-nf4 cannot be made: " in str(error) and "\n" not in str(error)
        assert not (tmp_path / "bnb-nf4").exists()
    else:
        config = json.loads((tmp_path / "bnb-nf4/config.json").read_text())
        assert config["quantization_config"]["quant_method"] == "bitsandbytes"


@pytest.mark.parametrize("label", ["bnb-merge", "mlx-community", "torchao", "Q4_K_M", "bnb-int4"])
def test_a_label_that_begins_like_a_form_is_none(label: str) -> None:
    assert library_of(label) is None
