"""The plan: which files and settings follow from an experiment, and when each job is due."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from conftest import SMOLLM2, Lab, tiny_config
from minillm_lab.experiment.config import load_experiment
from minillm_lab.experiment.for_others import command
from minillm_lab.experiment.plan import MODELS_FIRST, Plan, due
from minillm_lab.experiment.recipe_files import Recipes


def changed(key: str, value: Any) -> dict[str, Any]:
    config = copy.deepcopy(SMOLLM2)
    *parents, last = key.split(".")
    place = config
    for parent in parents:
        place = place[parent]
    place[last] = value
    return config


def planned(config: dict[str, Any]) -> Plan:
    return Plan(load_experiment(config), "workflow")


def test_a_variant_on_another_kind_of_node_is_measured_anew() -> None:
    def settings(constraint: str, account: str) -> str:
        config = changed("variants.q4_k_m.node", "big")
        config["nodes"] = {"big": {"constraint": constraint, "account": account}}
        return planned(config).settings("q4_k_m")

    assert settings("rome", "ours") == settings("rome", "theirs") != settings("milan", "ours")


def test_another_disk_is_measured_anew_and_none_says_nothing() -> None:
    def settings(scratch: str | None) -> str:
        return planned(changed("scratch", scratch)).settings("q4_k_m")

    assert settings("/a") != settings("/b")
    assert "scratch" not in json.loads(settings(None))


def test_nothing_goes_through_a_coarser_type(tmp_path: Path, tiny_gguf: Path) -> None:
    """Which jobs make BF16, F32 and a quantized type of each kind of source."""
    files = {t: {"file": f"{t}.gguf"} for t in ("F16", "BF16", "Q8_0")}
    hub = {"gguf": {"repository": "a/b", "revision": "1", "files": files}}
    config = changed("models", {
        "folder": {"path": "folder"}, "shipped": {"hub": hub}, "packed": {"path": "x.Q4_1.gguf"}
    })  # fmt: skip
    config["model"] = "folder"
    files = planned(config).models
    made_from = {
        (name, form): Path(files.made_from(name, form)).name
        for name in config["models"] for form in ("F16", "BF16", "F32", "Q4_0", "safetensors")
    }  # fmt: skip
    assert [made_from["folder", t] for t in ("BF16", "F32", "Q4_0")] == [
        "safetensors", "safetensors", "F16.gguf",
    ]  # fmt: skip
    assert [made_from["shipped", t] for t in ("F32", "Q4_0", "safetensors")] == ["BF16.gguf"] * 3
    assert [made_from["packed", t] for t in ("F16", "BF16", "F32", "Q4_0")] == [
        "x.Q4_1.gguf", "F16.gguf", "F16.gguf", "F16.gguf",
    ]  # fmt: skip


@pytest.mark.parametrize("type_", ["BF16", "F32"])
def test_a_folder_is_converted_straight_to_an_unquantized_type(type_: str, tmp_path: Path) -> None:
    (folder := tmp_path / "source").mkdir()
    (folder / "model.safetensors").touch()
    variants = {"whole": {"runtime": "llama.cpp", "quantization": type_}}
    plan = Lab(tmp_path / "lab", tiny_config(folder, variants=variants, baseline="whole")).planned()
    assert plan["convert"] == 1 and "quantize" not in plan


def test_depths_beyond_the_context_are_left_out() -> None:
    plan = planned(changed("depths", [64, 2048]))
    assert json.loads(plan.settings("fp16"))["depths"] == [64]


def test_rounds_and_trials_take_turns_by_number_in_an_order_that_stays() -> None:
    names = [f"v{i}" for i in range(40)]

    def all_due(number: int) -> list[int]:
        return [due(number, kind, name) for kind in ("round", "trial") for name in names]

    first, second = all_due(1), all_due(2)
    assert max(first) < MODELS_FIRST and min(first) > max(second)
    assert first != sorted(first) and first != sorted(first, reverse=True)
    assert first == all_due(1)
    assert min(first) >= due(2) + 1 > max(second)  # the provisional table comes between


def test_the_baseline_and_another_node_have_no_trials() -> None:
    config = changed("variants.q4_k_m.node", "big")
    config["nodes"] = {"big": {"partition": "big"}}
    plan = planned(config)
    assert plan.trials("f16") == plan.trials("q4_k_m") == []
    assert len(plan.trials("fp16")) == plan.experiment.trials


def test_a_name_that_is_not_there_is_one_line_with_those_that_are() -> None:
    with pytest.raises(
        SystemExit, match=r"^error: no variant 'q6_k' .*choose one of: fp16, f16, q8_0"
    ):
        planned(changed("rounds", 1)).weights("q6_k")


def test_what_quality_reads_is_looked_for_before_anything_runs() -> None:
    plan = planned(changed("quality", {"text": "gone.txt"}))
    with pytest.raises(
        SystemExit, match=r"^error: quality\.text: gone\.txt: there is no such file"
    ):
        plan.texts.text()
    assert planned(changed("quality", {})).texts.text() == "workflow/minillm_lab/quality/text.txt"


def test_the_command_is_what_a_reader_would_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command(["config.yaml"], {}) == "snakemake --cores 1"
    changes = {"rounds": 5}
    typed = "snakemake --cores 1 --configfile mine.yaml --config rounds=5"
    assert command([tmp_path / "mine.yaml"], changes) == typed
    assert command(["/elsewhere/mine.yaml"], changes) == typed


def test_each_model_may_have_a_reference_of_its_own() -> None:
    config = changed("models.packed", {"path": "x.Q4_1.gguf"})
    config["models"] |= {"whole": {"path": "folder"}, "far": {"path": "y.Q8_0.gguf"}}
    llama = {"runtime": "llama.cpp"}
    for model, type_ in (("packed", "Q4_1"), ("packed", "Q4_0"), ("whole", "F16"), ("far", "Q8_0")):
        name = f"{model}-{type_.lower()}"
        config["variants"][name] = llama | {"model": model, "quantization": type_}
    before = planned(config)
    config["models"]["packed"]["reference"] = "packed-q4_1"
    config["models"]["far"]["reference"] = {"file": __file__}
    plan = planned(config)
    assert plan.reference_weights("packed") == "models/packed/source/x.Q4_1.gguf"
    assert plan.computed("packed").runtime == "llama.cpp"
    own = SMOLLM2["model"]
    for model in (own, "whole"):  # the others' stays as it was
        assert plan.reference_weights(model) == before.reference_weights(model)
        assert plan.reference_settings(model) == before.reference_settings(model)
    assert plan.with_reference == [own, "packed", "whole"]
    assert plan.reference_file("far-q8_0") == __file__ and plan.shared_reference("far-q8_0")
    assert plan.answer("far") == [] and not plan.shared_reference("packed-q4_0")
    for model, name in (("packed", "x.Q4_1.gguf"), ("far", "y.Q8_0.gguf")):  # the same weights
        assert plan.models.fetched(model, name) == before.models.fetched(model, name)
        assert plan.models.provenance(model) == before.models.provenance(model)


def test_a_recipe_is_held_to_the_file_of_its_own_model() -> None:
    """Two models may name the same type, and then their recipes are named alike as well."""
    stock = {"runtime": "llama.cpp", "quantization": "Q4_K_M"}
    recipe = {"runtime": "llama.cpp", "quantization": "recipe"}
    variants = {}
    for model in ("one", "two"):
        variants[f"{model}-stock"] = stock | {"model": model}
        bounds = {key: {"of": f"{model}-stock"} for key in ("size", "time")}
        variants[f"{model}-recipe"] = recipe | {"model": model} | bounds
    shipped = {"path": "/data", "files": {"Q4_K_M": {"file": "two.Q4_K_M.gguf"}}}
    models = {"one": {"path": "/data/one.gguf"}, "two": shipped}
    config = tiny_config(variants=variants, models=models, baseline="one-stock")
    plan = Plan(load_experiment(config), "")
    recipes = Recipes(plan)
    for model, file in (("one", "Q4_K_M+imatrix.gguf"), ("two", "source/two.Q4_K_M.gguf")):
        form = plan.form(f"{model}-recipe")
        assert recipes.as_large_as(model, form) == f"models/{model}/{file}"
        assert recipes.as_fast_as(model, form) == f"models/{model}/{file}"


def test_a_timed_recipe_is_named_by_its_threads_wherever_they_are_given() -> None:
    recipe = {"runtime": "llama.cpp", "quantization": "recipe", "time": "20ms"}

    def form(own: int | None, usual: int | str) -> str:
        variants = {"a": recipe | ({"threads": own} if own else {})}
        config = tiny_config(Path("/data/m.gguf"), variants=variants, baseline="a", threads=usual)
        return Plan(load_experiment(config), "").form("a")

    assert form(2, 1) == form(None, 2) == form(2, "auto")
    assert len({form(None, 1), form(None, 2), form(None, "auto")}) == 3
