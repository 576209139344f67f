"""OpenVINO against Transformers, against itself token by token, and what it cannot take."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_runtimes import MAMBA, PASSAGES, SLIDING, saved
from transformers import AutoTokenizer, Gemma2ForCausalLM

from minillm_lab.jobs.errors import LabError
from minillm_lab.models.facts import facts_of
from minillm_lab.models.pack_openvino import pack
from minillm_lab.quality.evaluation import opened
from minillm_lab.runtimes import Passage, replied, resolved
from minillm_lab.runtimes.openvino import OpenVino
from quality_lab import FLOAT32
from tiny_model import random_model

SETTINGS = {"runtime": "openvino", "threads": 1, "device": "cpu", "kv_cache": "f32"}
FORMS = ["openvino-unquantized", "openvino-int8", "openvino-int4_sym-64", "openvino-int4_asym-64"]
OTHERWISE = [{"kv_cache": "f16"}, {"kv_cache": "u8"}, {"dynamic_quantization": 32}]
IDS = [5 + i * i % 200 for i in range(100)]
GEMMA2 = saved(Gemma2ForCausalLM, intermediate_size=64, layer_types=["sliding_attention"] * 2)


@pytest.fixture(scope="module")
def packed(tiny_safetensors: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The tiny model in every form."""
    folder = tmp_path_factory.mktemp("openvino")
    for form in FORMS:
        pack(tiny_safetensors, form, folder / form)
    return {form: folder / form for form in FORMS}


def one_at_a_time(runtime: Any, ids: list[int]) -> Iterator[np.ndarray]:
    runtime.clear()
    for token in ids:
        runtime.decode(token)
        yield runtime.logits().copy()


def divergence(p: np.ndarray, q: np.ndarray) -> float:
    """The mean KL divergence of rows of logits, in nats."""
    log_p, log_q = (torch.log_softmax(torch.tensor(x).double(), -1) for x in (p, q))
    return float((log_p.exp() * (log_p - log_q)).sum(-1).mean())


def test_unquantized_it_is_the_reference(packed: dict[str, Path], tiny_safetensors: Path) -> None:
    with opened(tiny_safetensors, FLOAT32, 128) as loaded:
        reference = loaded.runtime.logits_of([Passage(IDS, 0)]).copy()
        reply = replied(loaded.runtime, IDS[:9], 16)
    with opened(packed["openvino-unquantized"], SETTINGS, 128) as loaded:
        assert divergence(reference, loaded.runtime.logits_of([Passage(IDS, 0)])) < 1e-8
        assert replied(loaded.runtime, IDS[:9], 16) == reply
        assert loaded.runtime.replies([IDS[:9]], 16) == [reply]


@pytest.mark.parametrize("form", FORMS)
def test_a_whole_passage_has_the_logits_of_decoding(form: str, packed: dict[str, Path]) -> None:
    with opened(packed[form], SETTINGS, 1200) as loaded:
        single = np.array([*one_at_a_time(loaded.runtime, IDS)])
        whole = loaded.runtime.logits_of([Passage(IDS, 40)])
        assert whole == pytest.approx(single[40:], abs=1e-3)
        assert "scored_by" not in loaded.runtime.facts()["settings"]
        long = Passage([5 + i * i % 200 for i in range(1200)], 700)
        at_once = loaded.runtime.logits_of([long]).copy()
        streamed = [rows.copy() for rows in loaded.runtime.stream(long)]
        assert [len(rows) for rows in streamed] == [324, 176]
        assert np.concatenate(streamed) == pytest.approx(at_once, abs=1e-3)


@pytest.mark.parametrize("settings", OTHERWISE, ids=str)
def test_what_decodes_otherwise_is_scored_by_decoding(
    settings: dict[str, Any], packed: dict[str, Path]
) -> None:
    with opened(packed["openvino-int8"], SETTINGS | settings, 128) as loaded:
        assert loaded.runtime.facts()["settings"]["scored_by"] == "decoding"
        assert loaded.runtime.facts()["settings"].items() >= settings.items()
        loaded.runtime.clear()
        loaded.runtime.prefill(IDS[:41])
        expected = [loaded.runtime.logits().copy()]
        for token in IDS[41:60]:
            loaded.runtime.decode(token)
            expected.append(loaded.runtime.logits().copy())
        passage = Passage(IDS[:60], 40)
        assert np.array_equal(loaded.runtime.logits_of([passage]), expected)
        with opened(packed["openvino-int8"], SETTINGS, 128) as plain:
            exact = plain.runtime.logits_of([passage])
        assert 1e-4 < np.abs(exact - expected).max() < 1  # so the setting is not ignored
        assert np.array_equal(np.concatenate([*loaded.runtime.stream(passage)]), expected)


@pytest.mark.parametrize("settings", [{}, {"kv_cache": "u8"}], ids=str)
def test_passages_do_not_see_each_other(settings: dict[str, Any], packed: dict[str, Path]) -> None:
    with opened(packed["openvino-int8"], SETTINGS | settings, 128) as loaded:
        alone = []
        for passage in PASSAGES:
            alone.append(loaded.runtime.logits_of([Passage(passage.ids, passage.first)]).copy())
            for branch in filter(None, passage.branches):
                continued = Passage(passage.ids + branch, len(passage.ids))
                alone.append(loaded.runtime.logits_of([continued]).copy())
        together = loaded.runtime.logits_of(PASSAGES)
        assert together == pytest.approx(np.concatenate(alone), abs=1e-3 if not settings else 0.1)


def test_one_thread_takes_one_core(packed: dict[str, Path]) -> None:
    runtime = OpenVino()
    runtime.load(packed["openvino-int8"], resolved(SETTINGS, context=512))
    runtime.prefill(IDS)
    started, worked = time.perf_counter(), time.process_time()
    for token in (IDS * 4)[:400]:
        runtime.decode(token)
    worked, took = time.process_time() - worked, time.perf_counter() - started
    assert worked / took < 1.3
    assert runtime.facts()["threads"] == 1
    runtime.load(packed["openvino-int8"], resolved(SETTINGS | {"threads": 2}, context=512))
    assert runtime.facts()["threads"] == 2


def test_it_tokenizes_as_transformers_does(packed: dict[str, Path], tiny_safetensors: Path) -> None:
    theirs = AutoTokenizer.from_pretrained(tiny_safetensors)
    text = "Why is the sky blue? <|im_end|> Ünïcödé"
    with opened(packed["openvino-int8"], SETTINGS, 128) as loaded:
        for plain in (True, False):
            ids = theirs(text, add_special_tokens=plain)["input_ids"]
            assert loaded.runtime.tokenize(text, plain) == ids
            assert loaded.runtime.detokenize(ids) == theirs.decode(
                ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
            )


def test_a_full_context_and_a_broken_file_are_one_line(
    packed: dict[str, Path], tmp_path: Path
) -> None:
    runtime = OpenVino()
    runtime.load(packed["openvino-int8"], resolved(SETTINGS, context=64))
    with pytest.raises(LabError, match="the context of 64 tokens is full; raise 'context'"):
        runtime.prefill(IDS)
    (tmp_path / "openvino_model.xml").write_text("<net>")
    (tmp_path / "openvino_model.bin").write_bytes(b"0")
    with pytest.raises(LabError, match="OpenVINO cannot load it: ") as error:
        runtime.load(tmp_path, resolved(SETTINGS, context=64))
    assert "\n" not in str(error.value)


def test_what_would_end_the_process_is_refused(
    packed: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    class WithBfloat16:
        def get_property(self, device: str, name: str) -> Any:
            return ["FP32", "BF16"]

    runtime = OpenVino()
    monkeypatch.setattr(runtime, "core", WithBfloat16())
    for precision in ("bf16", "auto"):
        options = resolved(SETTINGS | {"precision": precision}, context=64)
        with pytest.raises(LabError, match=r"with one thread; take precision: f32, or more"):
            runtime.load(packed["openvino-unquantized"], options)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (MAMBA, "its layers of linear_attention keep no cache of every token"),
        (SLIDING, "its layers of sliding_attention keep no cache of every token"),
        (GEMMA2, "its layers of sliding_attention keep no cache of every token"),
    ],
    ids=["mamba", "sliding", "layer_types"],
)
def test_a_model_that_cannot_be_converted_is_one_line(
    made: Callable[[Path], Path], said: str, tmp_path: Path, tiny_safetensors: Path
) -> None:
    folder = made(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((tiny_safetensors / name).read_bytes())
    with pytest.raises(LabError, match=said) as error:
        pack(folder, "openvino-int8", tmp_path / "made/openvino-int8")
    assert "\n" not in str(error.value)
    assert not [*tmp_path.glob("made/*"), *tmp_path.glob("made/.*")]


def test_a_lost_weight_is_noticed(
    packed: dict[str, Path], tiny_safetensors: Path, tmp_path: Path
) -> None:
    for file in packed["openvino-int8"].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    model = tmp_path / "openvino_model.xml"
    model.write_text(model.read_text().replace("layers.1.mlp.up_proj", "layers.1.mlp.other"))
    with pytest.raises(
        LabError, match=r"not known what was stored of model.layers.1.mlp.up_proj.weight"
    ):
        facts_of(tmp_path, tiny_safetensors)


def test_nothing_is_reported_to_its_maker() -> None:
    code = (
        "import sys; from minillm_lab.models import pack_openvino; import nncf;"
        "print([m for m in sys.modules if m.startswith('openvino_telemetry.')])"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env={"PYTHONPATH": "workflow", "PATH": ""},
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert told.stdout.strip() == "[]"


@pytest.mark.parametrize("architecture", ["gpt_neox", "cohere"])
def test_what_is_stored_under_other_names_counts(
    architecture: str, tiny_safetensors: Path, tmp_path: Path
) -> None:
    """GPT-NeoX's output has another name in its file; norms of keys in Cohere are matrices."""
    more = {"use_qk_norm": True} if architecture == "cohere" else {}
    source = random_model(architecture, tiny_safetensors, tmp_path, **more)
    made = tmp_path / "openvino-int8"
    pack(source, made.name, made)
    facts, original = facts_of(made, source), facts_of(source)
    assert facts["parameters"] == original["parameters"]
    stored = (made / "openvino_model.bin").stat().st_size
    assert 8 * stored / facts["parameters"] == pytest.approx(facts["bits_per_weight"], rel=0.05)


def test_a_mixture_of_experts_is_refused(tiny_safetensors: Path, tmp_path: Path) -> None:
    source = random_model("mixtral", tiny_safetensors, tmp_path, num_local_experts=4)
    with pytest.raises(LabError, match="cannot be made: it is a mixture of experts"):
        pack(source, "openvino-int8", tmp_path / "openvino-int8")
