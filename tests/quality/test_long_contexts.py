import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from minillm_lab.jobs.errors import LabError
from minillm_lab.models.quantize import quantize
from minillm_lab.quality import text as module
from minillm_lab.quality.evaluation import opened
from minillm_lab.quality.reference import Reference, make_reference
from minillm_lab.quality.text import EvaluationText, Protocol, ends, evaluation_text, read_text
from minillm_lab.runtimes import Passage
from quality_lab import FLOAT32, LLAMA, TEXT, prepared, scored, value

CONTEXTS = [300, 600, 1300]  # one, two and three pieces
LONG = "".join(
    f"{i}. In the hotel he told them {i * i} things, {TEXT[i : i + 40]}\n" for i in range(60)
)


@pytest.fixture(scope="module")
def long_text(tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> EvaluationText:
    folder = tmp_path_factory.mktemp("long")
    prepared(tiny_gguf, folder)
    (folder / "long.txt").write_text(LONG, encoding="utf-8")
    protocol = Protocol(name="lab", context=64, score_from=16, long_contexts=CONTEXTS)
    return evaluation_text(
        tiny_gguf, folder / "text.txt", None, protocol, long_text=folder / "long.txt"
    )


@pytest.fixture(scope="module")
def exact(
    long_text: EvaluationText, tiny_safetensors: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    path = tmp_path_factory.mktemp("exact") / "reference.npz"
    make_reference("tiny", tiny_safetensors, long_text, FLOAT32, path, exact=True)
    return path


@pytest.fixture(scope="module")
def q4_k_m(tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("quantized") / "Q4_K_M.gguf"
    quantize(tiny_gguf, "Q4_K_M", path)
    return path


def test_every_long_passage_ends_with_the_text_and_the_same_tokens_are_scored(
    long_text: EvaluationText,
) -> None:
    assert [len(ids) for ids in long_text.long] == CONTEXTS
    passages = long_text.passages[len(long_text.chunks) :]
    scored_in = [ids[first + 1 :] for ids, first in passages]
    assert [len(ids) for ids in scored_in] == [150, 150, 1300 - 1 - 16]
    assert scored_in[0] == scored_in[1] == scored_in[2][-150:]
    begun = ends(list(range(100, 400)), [64, 128], begin=7)
    assert [ids[0] for ids in begun] == [7, 7] and begun[0][1:] == begun[1][-63:]


def test_divergence_piece_by_piece_is_that_of_the_whole_passage(
    long_text: EvaluationText, exact: Path, q4_k_m: Path, tiny_safetensors: Path
) -> None:
    found = scored(q4_k_m, long_text, exact)
    for context, ids in zip(CONTEXTS, long_text.long, strict=True):
        log_p = []
        for weights, settings in ((tiny_safetensors, FLOAT32), (q4_k_m, LLAMA)):
            with opened(weights, settings, context) as loaded:
                rows = loaded.runtime.logits_of([Passage(ids[:-1], 0)])[-150:].astype(float)
            log_p.append(rows - np.logaddexp.reduce(rows, axis=1)[:, None])
        p, q = log_p
        kld = (np.exp(p) * (p - q)).sum(axis=1)[-144:]  # eight blocks of 18
        assert value(found, f"kld_mean_at_{context}") == pytest.approx(kld.mean(), abs=1e-6)
        same = (p.argmax(axis=1) == q.argmax(axis=1))[-144:].mean()
        assert value(found, f"same_top_at_{context}") == pytest.approx(same, abs=1e-6)
    grown = value(found, "kld_mean_at_1300") / value(found, "kld_mean_at_300")
    assert value(found, "kld_growth_at_1300") == pytest.approx(grown)
    assert "kld_growth_at_300" not in found.metrics


def test_each_part_of_the_longest_passage_has_its_own_divergence(
    long_text: EvaluationText, exact: Path, q4_k_m: Path
) -> None:
    found = scored(q4_k_m, long_text, exact)
    assert [*found.by_position] == ["0–511", "512–1023", "1024–1298"]
    counted = [figure.n for figure in found.by_position.values()]
    assert counted == [496, 512, 272]  # 275, but eight equal blocks
    assert all(figure.ci95 and (figure.value or 0) > 0 for figure in found.by_position.values())


def test_figures_of_chunks_do_not_change_with_long_contexts(
    long_text: EvaluationText, exact: Path, q4_k_m: Path, tiny_safetensors: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    alone = EvaluationText.model_validate(
        long_text.model_dump()
        | {"long": [], "long_text_sha256": None}
        | {"protocol": long_text.protocol.model_dump() | {"long_contexts": []}}
    )
    make_reference("tiny", tiny_safetensors, alone, FLOAT32, tmp_path / "r.npz", exact=True)
    without = scored(q4_k_m, alone, tmp_path / "r.npz")
    found = scored(q4_k_m, long_text, exact)
    assert found.by_chunk == without.by_chunk and not without.by_position
    assert not any("_at_" in name for name in without.metrics)


def test_pieces_of_a_reference_hold_at_most_512_tokens(exact: Path) -> None:
    with Reference(exact) as reference:
        assert max(reference.tokens) <= 512
        sizes = [len(reference.piece(i).surprise) for i in range(len(reference.tokens))]
    assert sizes == reference.tokens


def test_a_long_text_that_is_too_short_is_refused_in_one_line() -> None:
    with pytest.raises(LabError, match=r"quality\.long_text: 100 tokens are fewer than the 128"):
        ends(list(range(100)), [64, 128], None)


def test_an_empty_long_text_is_refused_in_one_line(tiny_gguf: Path, tmp_path: Path) -> None:
    prepared(tiny_gguf, tmp_path)
    (tmp_path / "long.txt").write_text("")
    protocol = Protocol(name="lab", context=64, score_from=16, long_contexts=[64])
    with pytest.raises(LabError, match=r"quality\.long_text: 0 tokens are fewer than the 64"):
        evaluation_text(
            tiny_gguf, tmp_path / "text.txt", None, protocol, long_text=tmp_path / "long.txt"
        )


def test_growth_is_not_of_rounding_alone(
    long_text: EvaluationText, exact: Path, tiny_safetensors: Path
) -> None:
    itself = scored(tiny_safetensors, long_text, exact, FLOAT32)
    assert value(itself, "kld_mean_at_1300") < 1e-7
    assert not [name for name in itself.metrics if name.startswith("kld_growth")]


def test_contexts_beyond_the_model_are_left_out_and_named(tiny_gguf: Path, tmp_path: Path) -> None:
    prepared(tiny_gguf, tmp_path)
    (tmp_path / "long.txt").write_text(LONG, encoding="utf-8")
    protocol = {"name": "lab", "context": 64, "score_from": 16, "long_contexts": [256, 512, 1024]}
    files = {"--tokenizer": tiny_gguf, "--text": "text.txt", "--long-text": "long.txt"}
    done = subprocess.run(
        [sys.executable, "-m", "minillm_lab.quality.text", "--output", "out.json",
         "--protocol", json.dumps(protocol), *(str(x) for pair in files.items() for x in pair)],
        capture_output=True, text=True, cwd=tmp_path, check=True,
    )  # fmt: skip
    made = EvaluationText.model_validate_json((tmp_path / "out.json").read_text())
    assert made.protocol.long_contexts == [256, 512]
    assert "left out, since the model is made for 512 tokens: 1024" in done.stderr + done.stdout


def test_the_labs_own_long_text_fills_8192_tokens() -> None:
    text = read_text(Path(module.__file__).with_name("long.txt"))
    assert len(text.split()) > 8192  # a tokenizer makes a token of a word, or more
