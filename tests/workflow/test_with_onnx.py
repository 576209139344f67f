"""ONNX Runtime GenAI through the real workflow: files, facts, settings, table, quality."""

from pathlib import Path
from typing import Any

import pytest

from conftest import Lab, tiny_config

VARIANTS: dict[str, dict[str, Any]] = {
    "onnx": {},
    "int8": {"quantization": "int8"},
    "int8-exact": {"quantization": "int8", "accuracy_level": 1, "algo_config": "rtn"},
    "int4": {"quantization": "int4"},
}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, tiny_gguf: Path) -> Lab:
    """A finished experiment: float32 in Transformers, and each variant."""
    config = tiny_config(tiny_gguf, rounds=1, trials=1, generate=16)
    config["quality"] = {"chunks": 2, "context": 64, "questions": None}
    config["variants"] = {"fp32": {"runtime": "transformers", "dtype": "float32"}} | {
        name: {"runtime": "onnx", **settings} for name, settings in VARIANTS.items()
    }
    config["baseline"] = "fp32"
    lab = Lab(tmp_path_factory.mktemp("onnx") / "lab", config)
    lab.run()
    return lab


def figure(done: Lab, variant: str, name: str) -> float:
    found: float = done.json(f"results/{variant}.json")["quality"][name]["value"]
    return found


def test_unquantized_it_agrees_with_the_reference(done: Lab) -> None:
    assert figure(done, "onnx", "kld_mean") < 1e-4
    assert figure(done, "onnx", "answer_first_divergence_token") == 16
    result = done.json("results/onnx.json")
    assert result["model"]["bits_per_weight"] == 32
    assert len(result["trials"]) > 0 and result["no_trials"] is None


def test_what_is_quantized_loses_something_and_more_at_four_bits(done: Lab) -> None:
    loss = {name: figure(done, name, "kld_mean") for name in VARIANTS}
    assert loss["onnx"] < min(loss["int8"], loss["int8-exact"])
    assert max(loss["int8"], loss["int8-exact"]) < loss["int4"]


def test_results_say_all_that_changes_the_arithmetic(done: Lab) -> None:
    settings = {name: done.json(f"results/{name}.json")["runtime"]["settings"] for name in VARIANTS}
    for name, found in settings.items():
        assert found["compute"] == found["kv_cache"] == "float32"
        assert found["context"] == 128 and found["execution_provider"] == "cpu"
        rounded = name not in ("onnx", "int8-exact")
        assert found["activations"] == ("int8" if rounded else "float32")
        assert found.get("scored_by") == ("decoding" if rounded else None)
        whole = name == "onnx"
        assert found["unquantized"] == ("all" if whole else ["model.embed_tokens", "vectors"])
    assert (settings["int4"]["algo_config"], settings["int4"]["block_size"]) == ("k_quant", 32)
    assert settings["int4"]["matmul_mixed_precision"] == "last_matmul:int8,mixed_layers:int8"
    assert settings["int8-exact"]["is_symmetric"] and not settings["int4"]["is_symmetric"]
    runtime = done.json("results/int4.json")["runtime"]
    assert runtime["name"] == "onnx" and runtime["threads"] == 1
    assert {"onnxruntime-genai", "onnxruntime"} <= {*runtime["version"]}


def test_the_table_names_what_was_made(done: Lab) -> None:
    page = done.path("RESULTS.md").read_text()
    (weights,) = [line for line in page.splitlines() if line.startswith("| Weights")]
    assert "onnx-fp32" in weights and "onnx-int4-k_quant_mixed-block32-level4" in weights


def test_nothing_is_left_to_do_and_another_setting_makes_another_file(done: Lab) -> None:
    assert done.planned() == {}
    config = done.config["variants"]["int4"]
    done.config["variants"]["int4"] = config | {"block_size": 128}
    done.write_config()
    try:
        planned = done.planned()
        assert planned["pack"] == planned["round"] == planned["trial"] == planned["score"] == 1
    finally:
        done.config["variants"]["int4"] = config
        done.write_config()
