"""The cache of keys and values: its type, its bytes, and what a quantized one changes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from builders import made_up
from conftest import tiny_config
from minillm_lab.comparison.factors import steps
from minillm_lab.experiment.config import load_experiment
from minillm_lab.experiment.plan import Plan
from minillm_lab.jobs.errors import LabError
from minillm_lab.runtimes import Passage, resolved
from minillm_lab.runtimes.llama_cpp import LlamaCpp
from tiny_model import write_tiny_gguf

CONTEXT, LAYERS, VALUES = 256, 2, 128  # of a token and layer: two heads of 64 for keys
BITS = {"f32": 32, "f16": 16, "bf16": 16, "q8_0": 8.5, "q5_1": 6, "q5_0": 5.5, "q4_1": 5,
        "q4_0": 4.5, "iq4_nl": 4.5}  # fmt: skip


def run(gguf: Path, **settings: Any) -> tuple[dict[str, Any], NDArray[np.float32]]:
    """The settings as resolved, and the logits of a passage."""
    runtime = LlamaCpp()
    runtime.load(gguf, resolved({"threads": 1, "context": CONTEXT} | settings))
    logits = runtime.logits_of([Passage([*range(5, 105)], 10)]).copy()
    runtime.unload()
    return runtime.settings, logits


@pytest.mark.parametrize("type_", BITS)
def test_its_bytes_are_those_of_its_type(type_: str, tiny_gguf: Path) -> None:
    settings, logits = run(tiny_gguf, kv_cache=type_)
    assert settings["flash_attention"] == "enabled"
    assert settings["kv_cache"] == type_ and np.isfinite(logits).all()
    bytes_ = 2 * LAYERS * VALUES * CONTEXT * BITS[type_] / 8
    assert settings["kv_cache_bytes"] == pytest.approx(bytes_, abs=2**20 / 100)


def test_keys_and_values_may_have_types_of_their_own(tiny_gguf: Path) -> None:
    settings, _ = run(tiny_gguf, kv_cache={"k": "q8_0", "v": "f16"})
    assert settings["kv_cache"] == "q8_0/f16"
    bytes_ = LAYERS * VALUES * CONTEXT * (8.5 + 16) / 8
    assert settings["kv_cache_bytes"] == pytest.approx(bytes_, abs=2**20 / 100)


def test_f16_is_what_there_is_without_a_word_and_a_coarser_type_is_farther(tmp_path: Path) -> None:
    write_tiny_gguf(tmp_path / "tiny.F16.gguf", width=512, heads=4)  # heads of 128 values
    gguf = tmp_path / "tiny.F16.gguf"
    _, plain = run(gguf)
    far = {type_: np.abs(run(gguf, kv_cache=type_)[1] - plain).mean() for type_ in BITS}
    assert far["f16"] == 0
    assert 0 < far["q8_0"] < far["q5_0"] < far["q4_0"]


def test_the_type_reaches_rounds_trials_and_scores(tiny_gguf: Path) -> None:
    config = tiny_config(tiny_gguf)
    config["variants"]["q4_k_m"]["kv_cache"] = ["f16", "q8_0"]
    plan = Plan(load_experiment(config), "workflow")
    assert list(plan.experiment.variants) == ["f16", "q4_k_m-kv-f16", "q4_k_m-kv-q8_0"]
    for settings in (plan.settings, plan.trial_settings, plan.runtime_settings):
        assert json.loads(settings("q4_k_m-kv-q8_0"))["kv_cache"] == "q8_0"


@pytest.mark.parametrize("cache", ["q8_0", {"v": "q4_0"}, {"k": "f16", "v": "iq4_nl"}])
def test_quantized_values_without_flash_attention_are_refused(cache: Any, tiny_gguf: Path) -> None:
    config = tiny_config(tiny_gguf)
    config["variants"]["q4_k_m"] |= {"kv_cache": cache, "flash_attention": "off"}
    with pytest.raises(LabError, match=r"variants\.q4_k_m.*needs flash attention"):
        load_experiment(config)
    config["variants"]["q4_k_m"]["kv_cache"] = {"k": "q8_0"}
    load_experiment(config)


def test_heads_that_no_block_divides_are_one_line(tmp_path: Path) -> None:
    write_tiny_gguf(tmp_path / "tiny.F16.gguf", width=320, heads=4)  # heads of 80 values
    with pytest.raises(LabError, match=r"F16\.gguf: K cache type q8_0 .*=80; take kv_cache: f16"):
        run(tmp_path / "tiny.F16.gguf", kv_cache="q8_0")


def test_a_key_that_no_cache_has_is_told_the_keys(tiny_gguf: Path) -> None:
    config = tiny_config(tiny_gguf)
    config["variants"]["q4_k_m"]["kv_cache"] = {"x": "q8_0"}
    with pytest.raises(LabError, match=r"kv_cache\.x: unknown key; allowed: k, v$"):
        load_experiment(config)


def test_a_type_that_no_cache_has_is_one_line(tiny_gguf: Path) -> None:
    config = tiny_config(tiny_gguf)
    config["variants"]["q4_k_m"]["kv_cache"] = "q6_k"
    with pytest.raises(LabError, match=r"kv_cache: 'q6_k' is not one of .*'q8_0'") as error:
        load_experiment(config)
    assert "\n" not in str(error.value)


def test_what_a_quantized_cache_changes_is_not_said_to_be_quantizations(tmp_path: Path) -> None:
    results = {name: made_up(name, quantization=q) for name, q in (("f16", "F16"), ("q8", "Q8_0"))}
    assert [change for change, _, _ in steps("q8", "f16", results)] == ["quantization"]
    results["q8"].runtime["settings"]["kv_cache"] = "q8_0"
    assert steps("q8", "f16", results) == []
