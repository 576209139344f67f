"""The quality rules, with the real snakemake: what runs, what runs again, what the page says."""

import json
import os
import shutil
from pathlib import Path

import pytest

from conftest import Lab, tiny_config
from minillm_lab.experiment.config import load_experiment
from minillm_lab.experiment.plan import Plan
from minillm_lab.experiment.reference import published_at
from minillm_lab.jobs.errors import LabError
from quality_lab import QUESTIONS, SECTIONS, TEXT

FP16 = {"runtime": "transformers", "dtype": "float16"}
Q4_K_M = {"runtime": "llama.cpp", "quantization": "Q4_K_M"}
DRAWN = {"tables": 1, "charts": 1, "pages": 1, "readme": 1}
LONG = {"long_contexts": [256, 64], "long_text": "long.txt"}
ONCE = {"rounds": 1, "trials": 1, "repetitions": 1, "warmups": 0}


@pytest.fixture(scope="module")
def lab(tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """Both runtimes, run once."""
    config = tiny_config(
        tiny_gguf,
        variants={"fp16": FP16, "q4_k_m": Q4_K_M},
        baseline="fp16",
        quality={"text": "text.txt", "questions": "questions.yaml", "context": 64, **LONG},
        **ONCE,
    )
    lab = Lab(tmp_path_factory.mktemp("quality") / "lab", config)
    lab.path("text.txt").write_text(TEXT)
    lab.path("long.txt").write_text(TEXT)
    lab.path("text.sections.yaml").write_text(SECTIONS)
    lab.path("questions.yaml").write_text(QUESTIONS)
    lab.run()
    return lab


def test_results_hold_the_quality_of_both_runtimes(lab: Lab) -> None:
    for variant in ("fp16", "q4_k_m"):
        result = lab.json(f"results/{variant}.json")
        quality = result["quality"]
        assert result["quality_by_section"].keys() == {"first", "second"}
        assert len(result["quality_hurt_most"]) == 10
        assert result["quality_by_chunk"].keys() == {"kld_mean", "same_top", "surprise"}
        assert {"kld_mean", "kld_p99", "kld_max", "same_top", "perplexity_ratio"} <= quality.keys()
        assert {"first_divergence_token", "question_accuracy", "answer_flips"} <= quality.keys()
    assert lab.json("results/fp16.json")["quality"]["kld_mean"]["value"] < 1e-4
    assert "KL divergence" in lab.path("results/comparison.md").read_text()
    assert "- `fp16`: negligible loss. KL divergence" in lab.path("RESULTS.md").read_text()


def test_results_and_pages_hold_the_quality_in_long_contexts(lab: Lab) -> None:
    for variant in ("fp16", "q4_k_m"):
        result = lab.json(f"results/{variant}.json")
        assert result["protocol"]["quality"]["long_contexts"] == [64, 256]
        assert result["quality_by_position"].keys() == {"0–254"}
        found = {name for name in result["quality"] if "_at_" in name}
        assert found == {
            *(
                f"{name}_at_{c}"
                for name in ("kld_mean", "same_top", "perplexity")
                for c in (64, 256)
            ),
            "kld_growth_at_256",
        }
    table = lab.path("results/comparison.md").read_text()
    assert "KL divergence in a context of 64 ↓, nats" in table
    assert "KL divergence in a context of 256, × that in one of 64 ↓" in table
    assert "of the same 32 tokens" in lab.path("RESULTS.md").read_text()


def test_nothing_runs_again_when_nothing_changed(lab: Lab) -> None:
    assert lab.planned() == {}


def test_a_text_replaced_by_an_older_one(lab: Lab, tmp_path: Path) -> None:
    text, kept = lab.path("text.txt"), tmp_path / "kept.txt"
    shutil.copy2(text, kept)
    try:
        text.write_text(kept.read_text().replace("the", "teh"))
        os.utime(text, (1e9, 1e9))
        assert lab.planned().items() >= {"text": 1, "reference": 1, "score": 2}.items()
    finally:
        shutil.copy2(kept, text)
    assert lab.planned() == {}


@pytest.mark.parametrize("key", ["text", "questions"])
def test_a_text_that_is_not_there_is_said_before_anything_runs(lab: Lab, key: str) -> None:
    """Old figures never stand for another text."""
    before = lab.config["quality"]
    lab.config["quality"] = before | {key: "nowhere.txt"}
    lab.write_config()
    try:
        said = lab.snakemake("--cores", "1", "-n", ok=False).stderr
        assert f"error: quality.{key}: nowhere.txt: there is no such file" in said
        assert "Traceback" not in said
    finally:
        lab.config["quality"] = before
        lab.write_config()


def test_another_text_reruns_scores_not_rounds(lab: Lab) -> None:
    lab.path("text.txt").write_text(TEXT + TEXT[::-1])
    planned = lab.planned()
    lab.path("text.txt").write_text(TEXT)
    assert planned == {
        "text": 1, "reference": 1, "score": 2, "collect": 2, "compare": 1,
    } | DRAWN  # fmt: skip


def test_new_scoring_code_reruns_scores_not_rounds(lab: Lab) -> None:
    module = lab.path("workflow/minillm_lab/quality/score.py")
    before = module.read_text()
    module.write_text(before + "\n# changed\n")
    planned = lab.planned()
    module.write_text(before)
    assert planned == {"score": 2, "collect": 2, "compare": 1} | DRAWN


def test_another_prompt_reruns_the_answers_not_the_scores(lab: Lab) -> None:
    lab.config["prompt"] = "Why not?"
    lab.write_config()
    planned = lab.planned()
    lab.config["prompt"] = "Why?"
    lab.write_config()
    measured = {"round", "trial", "provisional"}
    assert planned.keys() == {"prompt", *measured, "answer", "collect", "compare", *DRAWN}


def test_more_rounds_score_nothing_again(lab: Lab) -> None:
    planned = lab.planned("--config", "rounds=2")
    assert planned.keys() == {"round", "collect", "compare", *DRAWN}


def test_quality_can_be_left_out(lab: Lab) -> None:
    planned = lab.planned("--config", "quality=false", "--forceall")
    assert not {"text", "reference", "score", "answer"} & planned.keys()


def test_a_reference_made_elsewhere_needs_no_unquantized_model(lab: Lab, tiny_gguf: Path) -> None:
    shared = tiny_config(
        tiny_gguf,
        variants={"q4_k_m": Q4_K_M},
        baseline="q4_k_m",
        quality=lab.config["quality"] | {"reference": {"file": "shared.{model}.npz"}},
        readme=None,
        **ONCE,
    )
    other = Lab(lab.folder.parent / "other", shared)
    for name in ("text.txt", "text.sections.yaml", "long.txt", "questions.yaml"):
        other.path(name).write_text(lab.path(name).read_text())
    other.path("shared.tiny.npz").write_bytes(
        lab.path("results/quality/reference.tiny.npz").read_bytes()
    )
    other.run("results/quality/q4_k_m.json")
    found = other.json("results/quality/q4_k_m.json")["metrics"]
    assert found == lab.json("results/quality/q4_k_m.json")["metrics"]
    assert "reference" not in other.planned("--forceall")


@pytest.mark.parametrize(
    ("quality", "said"),
    [
        ({"contxt": 512}, "quality.contxt: unknown key; did you mean 'context'?"),
        ({"reference": "q9"}, "quality.reference: no variant 'q9'; variants: f16, q4_k_m"),
        ({"reference": {"dtype": "float32"}}, "quality.reference: runtime is missing"),
        ({"reference": {"runtime": "onnx"}}, "quality.reference.runtime: 'onnx' is not one of"),
        ({"protocol": "llama-perplexity", "score_from": 9}, "score_from is set by protocol"),
        ({"context": 64, "score_from": 63}, "score_from leaves no token"),
        ({"long_contexts": [32]}, "greater than or equal to 64 (found 32)"),
        ({"protocol": "hellaswag"}, "'hellaswag' is not one of"),
    ],
)
def test_a_mistaken_setting_is_named_in_one_line(
    quality: dict[str, object], said: str, tiny_gguf: Path
) -> None:
    with pytest.raises(LabError) as caught:
        load_experiment(tiny_config(tiny_gguf, quality=quality))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_reference_file_is_refused_for_two_models(tiny_gguf: Path) -> None:
    config = tiny_config(tiny_gguf, quality={"reference": {"file": "shared.npz"}})
    config["models"]["second"] = config["models"]["tiny"]
    load_experiment(config)  # the second one is not used
    config["variants"]["of_second"] = Q4_K_M | {"model": "second"}
    with pytest.raises(LabError, match="one file cannot be the reference of 2 models"):
        load_experiment(config)
    config["quality"]["reference"]["file"] = "shared.{model}.npz"
    load_experiment(config)


PINNED = {"repository": "a/b", "revision": "0" * 40, "file": "r.npz", "sha256": "a" * 64}
EACH = {"file": "r.{model}.npz", "sha256": {"tiny": "a" * 64, "second": "b" * 64}}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"revision": "main"}, "quality.reference.hub.revision: 'main' is not allowed"),
        ({"file": "../r.npz"}, "quality.reference.hub.file: '../r.npz' must be a relative path"),
        ({"file": "r.pkl"}, "quality.reference.hub.file: 'r.pkl' is not allowed"),
        ({"fil": "r.npz"}, "quality.reference.hub.fil: unknown key; did you mean 'file'?"),
        ({"sha256": "a" * 63}, "quality.reference.hub.sha256: 'aaa"),
        ({"sha256": {"tiny": "a" * 64}}, "quality.reference.hub: one file has one sha256"),
        ({"file": "r.{model}.npz"}, "quality.reference.hub: sha256 needs a line for each model"),
    ],
)
def test_a_mistake_in_a_reference_on_the_hub_is_one_line(
    changed: dict[str, object], said: str, tiny_gguf: Path
) -> None:
    config = tiny_config(tiny_gguf, quality={"reference": {"hub": PINNED | changed}})
    with pytest.raises(LabError) as caught:
        load_experiment(config)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_each_of_several_models_has_its_own_reference_on_the_hub(tiny_gguf: Path) -> None:
    config = tiny_config(tiny_gguf, quality={"reference": {"hub": PINNED}})
    config["models"]["second"] = config["models"]["tiny"]
    config["variants"]["of_second"] = Q4_K_M | {"model": "second"}
    with pytest.raises(LabError, match="one file cannot be the reference of 2 models"):
        load_experiment(config)
    config["quality"]["reference"]["hub"] = PINNED | EACH
    experiment = load_experiment(config)
    plan, files = Plan(experiment, "workflow"), experiment.published_references()
    for variant, model, checksum in (("q4_k_m", "tiny", "a"), ("of_second", "second", "b")):
        place = f"a/b/{'0' * 40}/r.{model}.npz"
        assert plan.reference_file(variant) == f"models/.references/{place}"
        assert json.loads(published_at(place, files))["sha256"] == checksum * 64
    config["quality"]["reference"]["hub"] = PINNED | EACH | {"sha256": {"tiny": "a" * 64}}
    with pytest.raises(LabError, match="the file of 'second' has no checksum; add it"):
        load_experiment(config)
    config["quality"]["reference"]["hub"] = PINNED  # of the first alone, if the second has another
    other = PINNED | {"file": "other.npz"}
    config["models"]["second"] = config["models"]["tiny"] | {"reference": {"hub": other}}
    experiment = load_experiment(config)
    plan, files = Plan(experiment, "workflow"), experiment.published_references()
    assert {plan.reference_file(v) for v in ("q4_k_m", "of_second")} == {f.path for f in files}
    assert len(files) == 2 and not plan.with_reference
    config["models"]["second"]["reference"]["hub"] = PINNED | EACH | {"sha256": {"tiny": "a" * 64}}
    with pytest.raises(LabError, match=r"models\.second\.reference\.hub\.sha256: the file"):
        load_experiment(config)
