"""Settings of the runtime as axes: what llama.cpp resolves, what they are named, what they mean."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from builders import made_up
from conftest import Lab, tiny_config
from minillm_lab.comparison.compare import compare
from minillm_lab.comparison.factors import steps
from minillm_lab.experiment.config import load_experiment
from minillm_lab.experiment.plan import Plan
from minillm_lab.jobs.errors import LabError
from minillm_lab.report.table import rows
from minillm_lab.runtimes import Passage, described, resolved
from minillm_lab.runtimes.llama_cpp import LlamaCpp

LISTS = {
    "flash_attention": ["on", "off"], "micro_batch": [64, 128], "threads_batch": ["auto", 4],
    "mmap": [True, False],
}  # fmt: skip


def run(gguf: Path, sequences: int = 1, **settings: Any) -> tuple[dict[str, Any], NDArray[Any]]:
    """The runtime as a result records it, and the logits of a passage with branches."""
    runtime = LlamaCpp()
    options = resolved({"threads": 1, "context": 4096} | settings, sequences=sequences)
    runtime.load(gguf, options)
    branches = [[7, 8], [9]] if sequences > 1 else []
    logits = runtime.logits_of([Passage([*range(5, 205)], 10, branches)]).copy()
    facts = described("llama.cpp", options, runtime)
    runtime.unload()
    return facts, logits


@pytest.mark.parametrize("sequences", [1, 4])
@pytest.mark.parametrize(
    ("chosen", "recorded"),
    [
        ({"micro_batch": 64}, {"micro_batch": 64, "batch": 2048}),
        ({"micro_batch": 1}, {"micro_batch": 1}),
        ({"micro_batch": 4000}, {"micro_batch": 4000, "batch": 4000}),
        ({"mmap": False}, {"load_mode": "none"}),
        ({"mmap": True}, {"load_mode": "mmap"}),
        ({"flash_attention": "on"}, {"flash_attention": "enabled"}),
        ({"flash_attention": "off"}, {"flash_attention": "disabled"}),
    ],
    ids=str,
)
def test_a_setting_is_recorded_as_resolved_and_computes_the_same(
    chosen: dict[str, Any], recorded: dict[str, Any], sequences: int, tiny_gguf: Path
) -> None:
    own, plain = run(tiny_gguf, sequences)
    facts, logits = run(tiny_gguf, sequences, **chosen)
    assert facts["settings"].items() >= recorded.items()
    assert facts["settings"]["chosen"] == [*chosen] and own["settings"]["chosen"] == []
    assert np.abs(logits - plain).max() < 0.02 * plain.std()


def test_prompts_have_threads_of_their_own_or_those_of_decoding(tiny_gguf: Path) -> None:
    for given, of_prompts in ((3, 3), ("auto", 2), (None, 2)):
        facts, _ = run(tiny_gguf, threads=2, threads_batch=given)
        assert (facts["threads"], facts["settings"]["threads_batch"]) == (2, of_prompts)


def test_lists_of_them_make_variants_that_all_jobs_know(tiny_gguf: Path) -> None:
    config = tiny_config(tiny_gguf, threads=2)
    config["variants"]["q4_k_m"] |= LISTS | {"kv_cache": ["f16"]}
    plan = Plan(load_experiment(config), "workflow")
    names = [name for name in plan.experiment.variants if name.startswith("q4")]
    assert len(names) == 16 and names[0] == "q4_k_m-kv-f16-fa-on-ub64-tbauto-mmap-on"
    assert names[-1] == "q4_k_m-kv-f16-fa-off-ub128-tb4-mmap-off"
    told = {"flash_attention": "off", "micro_batch": 128, "threads_batch": 4, "mmap": False}
    for settings in (plan.settings, plan.trial_settings, plan.runtime_settings):
        assert json.loads(settings(names[-1])).items() >= told.items()
    assert len({plan.weights(name) for name in names}) == 1


def test_yamls_own_words_for_on_and_off_are_taken(tiny_gguf: Path) -> None:
    config = tiny_config(tiny_gguf)
    config["variants"]["q4_k_m"]["flash_attention"] = [True, False]  # YAML's on and off
    found = load_experiment(config).variants
    assert {name: getattr(v, "flash_attention", "") for name, v in found.items()} == {
        "f16": "auto", "q4_k_m-fa-on": "on", "q4_k_m-fa-off": "off",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("micro_batch", 129, "129 tokens are more than the context of 128 holds"),
        ("micro_batch", 0, "greater than or equal to 1"),
        ("micro_batch", "auto", "valid integer"),
        ("threads_batch", 0, "greater than or equal to 1"),
        ("threads_batch", "two", "'two' is not one of 'auto'"),
        ("mmap", "no", "valid boolean .found 'no'"),
        ("mmap", ["on", False], "valid boolean .found 'on'"),
    ],
)
def test_what_cannot_be_is_one_line(key: str, value: Any, said: str, tiny_gguf: Path) -> None:
    config = tiny_config(tiny_gguf)
    config["variants"]["q4_k_m"][key] = value
    with pytest.raises(LabError, match=rf"variants\.q4_k_m\S*\.{key}: .*{said}") as error:
        load_experiment(config)
    assert "\n" not in str(error.value)


OWN = {"flash_attention": "enabled", "micro_batch": 512, "threads_batch": 2, "load_mode": "mmap"}
OTHERS = {"flash_attention": "disabled", "micro_batch": 64, "load_mode": "none"}
KEYS = {"flash_attention": "flash_attention", "micro_batch": "micro_batch", "mmap": "load_mode"}


@pytest.mark.parametrize("key", [*KEYS, "threads_batch"])
def test_what_a_setting_changes_is_not_said_to_be_quantizations(key: str) -> None:
    results = {name: made_up(name, quantization=q) for name, q in (("f16", "F16"), ("q8", "Q8_0"))}
    for result in results.values():
        result.runtime["settings"] |= OWN
    assert [change for change, _, _ in steps("q8", "f16", results)] == ["quantization"]
    settings = results["q8"].runtime["settings"]
    if key == "threads_batch":
        settings["threads_batch"] = 4
    else:
        settings |= {KEYS[key]: OTHERS[KEYS[key]], "chosen": [key]}
    assert steps("q8", "f16", results) == []
    if key != "threads_batch":  # the same value by choice
        settings[KEYS[key]] = OWN[KEYS[key]]
        assert [change for change, _, _ in steps("q8", "f16", results)] == ["quantization"]


def test_what_a_device_chooses_itself_belongs_to_the_device() -> None:
    results = {name: made_up(name, backend=b) for name, b in (("cpu", "CPU"), ("gpu", "Vulkan"))}
    results["cpu"].runtime["settings"] |= OWN
    results["gpu"].runtime["settings"] |= OWN | {"load_mode": "none"}
    assert [change for change, _, _ in steps("gpu", "cpu", results)] == ["device"]


def test_the_table_shows_what_was_chosen_or_differs() -> None:
    results = {name: made_up(name, quantization="Q8_0") for name in ("own", "other")}
    for result in results.values():
        result.runtime["settings"] |= OWN
    labels = {row[0] for row in rows(compare(results, "own", "make run"))}
    assert not labels & {"Flash attention", "Micro-batch, tokens", "Threads, decoding · prompts"}
    results["other"].runtime["settings"] |= OTHERS | {"threads_batch": 4, "chosen": [*KEYS]}
    found = {row[0]: row[1:] for row in rows(compare(results, "own", "make run"))}
    assert found["Flash attention"] == ["on", "off"]
    assert found["Micro-batch, tokens"] == ["512", "64"]
    assert found["File mapped into memory"] == ["yes", "no"]
    assert found["Threads, decoding · prompts"] == ["2", "2 · 4"]


def test_a_sweep_through_the_real_workflow(tmp_path: Path, tiny_gguf: Path) -> None:
    config = tiny_config(tiny_gguf, rounds=1, trials=1)
    config["variants"] = {
        "f16": config["variants"]["f16"],
        "v": {"runtime": "llama.cpp", "quantization": "F16", "mmap": [True, False]}
        | {"micro_batch": 64, "threads_batch": 2},
    }
    lab = Lab(tmp_path / "lab", config)
    lab.run()
    for name, mode in (("v-mmap-on", "mmap"), ("v-mmap-off", "none")):
        result = lab.json(f"results/{name}.json")
        settings = result["runtime"]["settings"]
        assert (settings["load_mode"], settings["micro_batch"]) == (mode, 64)
        assert (result["runtime"]["threads"], settings["threads_batch"]) == (1, 2)
        assert settings["chosen"] == ["micro_batch", "mmap"]
    assert lab.json("results/comparison.json")["factors"] == {"v-mmap-on": [], "v-mmap-off": []}
    page = lab.path("RESULTS.md").read_text()
    card = lab.program("export", "--format=model-card")
    assert "llama.cpp, micro_batch 64, mmap no, threads_batch 2`" in card
    assert "File mapped into memory" in page and "Threads, decoding · prompts" in page
