"""ONNX Runtime GenAI: its logits, its threads, and what it is asked for but cannot do."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import MambaConfig, MambaForCausalLM

from conftest import ROOT, Lab, tiny_config
from minillm_lab.experiment.config import load_experiment
from minillm_lab.jobs.errors import LabError
from minillm_lab.models import pack_onnx
from minillm_lab.models.facts import facts_of
from minillm_lab.models.pack_onnx import pack
from minillm_lab.quality.evaluation import opened
from minillm_lab.quality.text import EvaluationText
from minillm_lab.runtimes import Passage, replied
from quality_lab import FLOAT32, scored, value
from tiny_model import random_model

PACKAGE = {"PYTHONPATH": str(ROOT / "workflow")}
ONNX = {"runtime": "onnx", "threads": 1, "device": "cpu"}
FORMS = (
    "onnx-fp32",
    "onnx-int8-default-block32-level4",
    "onnx-int8-rtn-block64-level1",
    "onnx-int4-k_quant_mixed-block32-level4",
    "onnx-int4-k_quant_last-block16-level1",
    "onnx-int4-default-block128-level4",
)
PASSAGES = [
    Passage([*range(40, 60)], 12, [[7], [8, 9, 10], [], [11]]),
    Passage([5], 0),
    Passage([*range(90, 99)], 8, [[30, 31], [30, 31], [32], [33]]),
]


@pytest.fixture(scope="module")
def made(tiny_safetensors: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The tiny model in each form."""
    folder = tmp_path_factory.mktemp("onnx")
    for form in FORMS:
        pack(tiny_safetensors, form, folder / form)
    return {form: folder / form for form in FORMS}


@pytest.mark.parametrize("form", FORMS)
def test_what_is_scored_is_what_is_decoded(
    made: dict[str, Path], form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = Passage([5 + i * i % 200 for i in range(510)], 500)
    with opened(made[form], ONNX, 512) as loaded:
        runtime, decoded = loaded.runtime, []
        for passage in PASSAGES:
            for ids in ([], *filter(None, passage.branches)):
                first = len(passage.ids) if ids else passage.first
                whole = passage.ids + ids
                runtime.clear()
                if first:  # what is before them is read, as a prompt is
                    runtime.prefill(whole[:first])
                for token in whole[first:]:
                    runtime.decode(token)
                    decoded.append(runtime.logits().copy())
        together = runtime.logits_of(PASSAGES)
        assert together == pytest.approx(np.array(decoded), abs=1e-3)
        whole = runtime.logits_of([long])
        monkeypatch.setattr("minillm_lab.runtimes.onnx.STEP", 504)
        streamed = [rows.copy() for rows in runtime.stream(long)]
        assert [len(rows) for rows in streamed] == [4, 6]  # of 504 tokens at a time
        assert np.concatenate(streamed) == pytest.approx(whole, abs=1e-3)
        prompts = [[40 + i * i % 200 for i in range(n)] for n in (5, 23, 1)]
        assert runtime.replies(prompts, 6) == [replied(runtime, p, 6) for p in prompts]
        by_decoding = loaded.facts["settings"].get("scored_by") == "decoding"
        assert by_decoding == form.endswith("level4")


def test_unquantized_it_computes_what_the_reference_does(
    made: dict[str, Path], text: EvaluationText, reference: Path, tiny_safetensors: Path
) -> None:
    found = scored(made["onnx-fp32"], text, reference, ONNX)
    assert value(found, "kld_mean") < 1e-4
    with opened(made["onnx-fp32"], ONNX, 64) as ours, opened(tiny_safetensors, FLOAT32, 64) as own:
        assert replied(ours.runtime, [54, 71, 30], 16) == replied(own.runtime, [54, 71, 30], 16)


def test_one_thread_is_one_thread(made: dict[str, Path]) -> None:
    with opened(made[FORMS[1]], ONNX, 512) as loaded:
        loaded.runtime.prefill([*range(40, 60)])
        begun, used = time.perf_counter(), time.process_time()
        for _ in range(400):
            loaded.runtime.decode(7)
        assert time.process_time() - used < 1.3 * (time.perf_counter() - begun)
        with pytest.raises(LabError, match="the context of 512 tokens is full; raise 'context'"):
            loaded.runtime.prefill([7] * 100)


def test_a_context_longer_than_the_models_is_one_line(made: dict[str, Path]) -> None:
    said = r"513 tokens is longer than the 512 .*; lower 'context'$"
    with pytest.raises(LabError, match=said), opened(made[FORMS[0]], ONNX, 513):
        pass


def test_facts_count_over_the_models_own_parameters(
    made: dict[str, Path], tiny_safetensors: Path
) -> None:
    original = facts_of(tiny_safetensors)
    for form, folder in made.items():
        found = facts_of(folder, tiny_safetensors)
        assert found["format"] == "onnx" and found["context"] == original["context"]
        assert found["parameters"] == original["parameters"]
        weights = found["bits_per_weight"] * found["parameters"] / 8
        tables = 2 * 512 * 32 * 4  # of positions
        assert sum(f["bytes"] for f in found["files"]) == pytest.approx(weights + tables, rel=0.05)
        assert sum(found["tensor_types"].values()) == pytest.approx(1)
        if form == "onnx-fp32":
            assert found["bits_per_weight"] == 32 and found["tensor_types"] == {"F32": 1}
        else:  # the embedding and vectors stay
            embedding = 300 * 256 / original["parameters"]
            assert found["tensor_types"]["F32"] == pytest.approx(embedding, rel=0.05)


@pytest.mark.parametrize(
    "settings, said",
    [
        ({"quantization": "int3"}, "'int3' is not one of 'int8' or 'int4'"),
        ({"quantization": "int8", "block_size": 33}, "33 is not one of 16, 32"),
        ({"block_size": 32}, "block_size is that of quantized weights; add a quantization"),
        ({"quantization": "int8", "algo_config": "k_quant_mixed"}, "take k_quant for int8"),
        ({"quantization": "int4", "accuracy": 1}, "did you mean 'accuracy_level'?"),
        ({"dtype": "float16"}, "unknown key"),
    ],
)
def test_wrong_settings_are_one_line(settings: dict[str, Any], said: str) -> None:
    config = tiny_config(Path("tiny.F16.gguf"))
    config["variants"]["wrong"] = {"runtime": "onnx", **settings}
    with pytest.raises(LabError) as error:
        load_experiment(config)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_model_that_cannot_be_converted_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = MambaConfig(vocab_size=300, hidden_size=64, num_hidden_layers=2)
    MambaForCausalLM(config).save_pretrained(tmp_path / "mamba")
    (tmp_path / "out").mkdir()
    with pytest.raises(LabError) as error:
        pack(tmp_path / "mamba", "onnx-fp32", tmp_path / "out/onnx-fp32")
    assert "\n" not in str(error.value)
    assert "cannot make onnx-fp32 of it" in str(error.value)
    assert "run this model in another runtime" in str(error.value)
    assert not [*(tmp_path / "out").iterdir()]


MISSING = """
import importlib.metadata as metadata
found = metadata.version
def version(name):
    if name == "onnxruntime-genai":
        raise metadata.PackageNotFoundError(name)
    return found(name)
metadata.version = version
"""


def test_without_the_library_a_dry_run_says_how_to_install_it(
    tmp_path: Path, tiny_gguf: Path
) -> None:
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden/sitecustomize.py").write_text(MISSING)
    config = tiny_config(tiny_gguf)
    config["variants"]["onnx"] = {"runtime": "onnx"}
    lab = Lab(tmp_path / "lab", config, {"PYTHONPATH": str(tmp_path / "hidden")})
    done = lab.snakemake("-n", ok=False)
    (line,) = [line for line in done.stderr.splitlines() if "error:" in line]
    assert "onnx: not installed" in line
    assert line.endswith('make install RUNTIMES="onnx"')


LINEAR = {"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0}


@pytest.mark.parametrize(
    ("architecture", "more", "said"),
    [
        ("llama", {"rope_parameters": LINEAR}, "does not scale positions as linear does"),
        ("olmo", {}, "builds olmo otherwise than it is"),
        ("llama", {"head_dim": 24}, "cannot compute it: .*multiple of 16"),
    ],
)
def test_what_the_builder_builds_wrongly_is_refused(
    architecture: str, more: dict[str, Any], said: str, tiny_safetensors: Path, tmp_path: Path
) -> None:
    source = random_model(architecture, tiny_safetensors, tmp_path, **more)
    form = "onnx-int4-default-block32-level4"
    with pytest.raises(LabError, match=said):
        pack(source, form, tmp_path / form)
    assert not (tmp_path / form).exists()


def test_unquantized_it_is_held_against_transformers(
    tiny_safetensors: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack_onnx, "check_known", lambda source: None)
    source = random_model("llama", tiny_safetensors, tmp_path, rope_parameters=LINEAR)
    with pytest.raises(LabError, match=r"does not compute what Transformers does: .* nats"):
        pack(source, "onnx-fp32", tmp_path / "onnx-fp32")


def test_tokens_come_without_transformers_in_memory(made: dict[str, Path]) -> None:
    told = f"""
import sys
from pathlib import Path
from minillm_lab.runtimes import Options, open_runtime
runtime = open_runtime("onnx")
options, weights = Options(threads=1, context=64), Path({str(made["onnx-fp32"])!r})
runtime.prepare(weights, options)
runtime.load(weights, options)
assert runtime.detokenize(runtime.tokenize("hello", True)) == "hello"
assert not {{"torch", "transformers"}} & {{*sys.modules}}
"""
    subprocess.run([sys.executable, "-c", told], check=True, env=os.environ | PACKAGE)
