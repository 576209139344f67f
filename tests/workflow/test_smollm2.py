"""The default experiment on the real SmolLM2-135M-Instruct, from its wheel."""

import re
import shutil
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from conftest import Lab
from tiny_model import plant_code


@pytest.fixture(scope="module")
def done(smollm2: Lab) -> Lab:
    smollm2.run()
    return smollm2


def test_every_variant_has_its_result(done: Lab) -> None:
    for variant in done.config["variants"]:
        result = done.json(f"results/{variant}.json")
        assert result["protocol"]["generated_tokens"] == 32
        assert result["metrics"]["decode_tokens_per_second"]["value"] > 0
        assert len(result["output"]["token_ids"]) == 32
        numbers = {block["trial"] for block in result["trials"]}
        assert len(numbers) == (variant != done.config["baseline"])
        assert all(trial["ratios"]["decode_tokens_per_second"] > 0 for trial in result["trials"])


def test_the_readme_is_current(done: Lab) -> None:
    table = done.path("results/comparison.md").read_text().splitlines()[0]
    assert table in done.path("RESULTS.md").read_text()
    assert done.planned() == {}
    readme = done.path("README.md")
    readme.write_text(readme.read_text().replace("| [Decode]", "| [Decoded]"))
    assert "readme" in done.planned()


def test_all_variants_were_asked_the_same_tokens(done: Lab) -> None:
    results = [done.json(f"results/{v}.json") for v in done.config["variants"]]
    assert len({r["protocol"]["prompt_tokens"] for r in results}) == 1
    assert not [w for r in results for w in r["warnings"] if "tokenizers disagree" in w]


def test_float16_in_both_runtimes_says_the_same_at_first(done: Lab) -> None:
    ours = done.json("results/fp16.json")["output"]["token_ids"]
    theirs = done.json("results/f16.json")["output"]["token_ids"]
    assert ours[:16] == theirs[:16]


def test_fallback_is_flagged(done: Lab) -> None:
    holds = done.json("results/q4_k_m.json")["model"]["tensor_types"]
    assert holds["Q5_0"] == pytest.approx(0.58, abs=0.01)  # rows of 576
    assert re.search(r"⚠ 58 % Q5_0", done.path("RESULTS.md").read_text())


def test_safetensors_alone_give_the_same_quantization(done: Lab, tmp_path: Path) -> None:
    """A folder of safetensors goes the whole way; its Q4_K_M is the packaged path's.

    Code planted in the folder does not run on the way, llama.cpp's converter included.
    """
    folder = tmp_path / "source"
    shutil.copytree(done.path("models/smollm2-135m-instruct/safetensors"), folder)
    plant_code(folder, tmp_path / "canary")
    config = yaml.safe_load(done.path("config.yaml").read_text())
    config["models"] = {"smollm2-135m-instruct": {"path": str(folder)}}
    config["variants"] = {"q4_k_m": config["variants"]["q4_k_m"]}
    config |= {"baseline": "q4_k_m", "readme": "PAGE.md", "quality": None}
    lab = Lab(tmp_path / "lab", config)
    lab.run("results/q4_k_m.json")
    assert not (tmp_path / "canary").exists()
    made = [list(where.path("models").glob("*/Q4_K_M+*.gguf")) for where in (lab, done)]
    ours, theirs = (gguf.GGUFReader(file).tensors for (file,) in made)
    ours_by_name, theirs_by_name = ({t.name: t for t in tensors} for tensors in (ours, theirs))
    assert ours_by_name.keys() == theirs_by_name.keys()
    for tensor, other in theirs_by_name.items():
        assert ours_by_name[tensor].tensor_type == other.tensor_type
        np.testing.assert_array_equal(ours_by_name[tensor].data, other.data, err_msg=tensor)


def test_bf16_is_made_of_bf16_and_not_through_f16(done: Lab, tmp_path: Path) -> None:
    """What float16 cannot hold is still there."""
    folder = tmp_path / "source"
    shutil.copytree(done.path("models/smollm2-135m-instruct/safetensors"), folder)
    weights = {k: t.to(torch.bfloat16) for k, t in load_file(folder / "model.safetensors").items()}
    name = "model.layers.0.mlp.up_proj.weight"
    weights[name][0, :2] = torch.tensor([2.0**-30, 2.0**20])
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    variants = {t.lower(): {"runtime": "llama.cpp", "quantization": t} for t in ("BF16", "F32")}
    config = yaml.safe_load(done.path("config.yaml").read_text()) | {"variants": variants}
    config |= {"models": {"smollm2-135m-instruct": {"path": str(folder)}}, "baseline": "f32"}
    lab = Lab(tmp_path / "lab", config)
    files = [f"models/smollm2-135m-instruct/{t}.gguf" for t in ("BF16", "F32")]
    lab.run(*files)
    assert not lab.path("models/smollm2-135m-instruct/F16.gguf").exists()
    for file in files:
        (tensor,) = [
            t for t in gguf.GGUFReader(lab.path(file)).tensors if t.name == "blk.0.ffn_up.weight"
        ]
        held = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        np.testing.assert_array_equal(held, weights[name].float().numpy())
