from pathlib import Path

import pytest

from minillm_lab.errors import LabError
from minillm_lab.quality import text as module
from minillm_lab.quality.text import Protocol, cut, read_text
from quality_lab import SHORT, prepared


def test_both_kinds_of_tokenizer_cut_the_text_alike(
    tiny_gguf: Path, tiny_safetensors: Path, tmp_path: Path
) -> None:
    assert prepared(tiny_gguf, tmp_path) == prepared(tiny_safetensors, tmp_path)


def test_every_chunk_begins_with_the_begin_token_as_in_llama_perplexity() -> None:
    ids = list(range(10, 10 + 3 * SHORT.context))
    chunks = cut(ids, SHORT, begin=1)
    assert [chunk[0] for chunk in chunks] == [1, 1, 1]
    assert chunks[0][1] == 10  # the begin token pushes the text by one
    assert chunks[1][1:3] == [10 + SHORT.context, 11 + SHORT.context]


def test_fewer_chunks_are_spread_over_the_text() -> None:
    protocol = Protocol(name="lab", context=8, score_from=2, chunks=3)
    chunks = cut(list(range(80)), protocol, begin=None)
    assert [chunk[0] for chunk in chunks] == [0, 24, 48]


def test_a_short_text_is_refused_in_one_line() -> None:
    with pytest.raises(LabError, match=r"quality\.text: 100 tokens are too few"):
        cut(list(range(100)), SHORT, None)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(LabError, match="not UTF-8"):
        read_text(tmp_path / "text.txt")


def test_the_labs_own_text_is_long_and_in_several_scripts() -> None:
    text = read_text(Path(module.__file__).with_name("text.txt"))
    assert len(text) > 40_000
    assert all(any(low <= c <= high for c in text) for low, high in (("अ", "ह"), ("一", "鿿")))
