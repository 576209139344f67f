"""A vocabulary like Gemma's: 262,144 entries, and a token that begins every text."""

from pathlib import Path

import numpy as np
import pytest

from minillm_lab.models.quantize import quantize
from minillm_lab.quality.reference import Reference, make_reference
from minillm_lab.quality.text import EvaluationText
from quality_lab import LLAMA, SHORT, TEXT, prepared, scored, value
from tiny_model import write_tiny_gguf

VOCABULARY, BEGIN = 262_144, 2


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gemma") / "F16.gguf"
    write_tiny_gguf(path, width=64, feed=128, output=0.12, sentencepiece=VOCABULARY)
    return path


@pytest.fixture(scope="module")
def text(model: Path) -> EvaluationText:
    return prepared(model, model.parent, SHORT.model_copy(update={"chunks": 3}))


def test_every_chunk_prompt_and_question_begins_with_the_begin_token(text: EvaluationText) -> None:
    begun = text.chunks + text.prompts + [question.prompt for question in text.questions]
    assert text.begins and {ids[0] for ids in begun} == {BEGIN}
    assert all(BEGIN not in ids[1:] for ids in begun)


def test_the_begin_token_has_no_bytes_and_the_others_are_the_texts(text: EvaluationText) -> None:
    assert text.bytes is not None
    assert text.bytes[0][0] == 0
    for sizes, start in zip(text.bytes, text.starts, strict=True):
        part = TEXT.encode()[start : start + sum(sizes)]
        assert part.count(b"Line ") >= 1


def test_compact_and_exact_references_agree_there_too(model: Path, text: EvaluationText) -> None:
    whole, compact = model.parent / "exact.npz", model.parent / "compact.npz"
    make_reference("large", model, text, LLAMA, whole, exact=True)
    make_reference("large", model, text, LLAMA, compact)
    with Reference(compact) as opened:
        ids = opened.piece(0).compact
        assert ids is not None and ids.top_ids.dtype == np.uint32 and ids.top_ids.max() > 1 << 16
    assert value(scored(model, text, compact), "kld_mean") == pytest.approx(0, abs=1e-9)
    quantize(model, "Q4_0", model.parent / "Q4_0.gguf")
    by_whole, by_compact = (scored(model.parent / "Q4_0.gguf", text, x) for x in (whole, compact))
    assert value(by_compact, "kld_mean") == pytest.approx(value(by_whole, "kld_mean"), rel=0.05)
    for name in ("same_top", "perplexity", "bits_per_byte", "delta_p_rms"):
        assert value(by_compact, name) == pytest.approx(value(by_whole, name), rel=1e-6)
