from pathlib import Path

import pytest

from minillm_lab.jobs.errors import LabError
from minillm_lab.quality import text as module
from minillm_lab.quality.text import Protocol, cut, read_sections, read_text
from minillm_lab.quality.tokenizer import open_tokenizer, read_tokens, sizes_of
from quality_lab import SHORT, TEXT, prepared


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


@pytest.mark.parametrize("kind", ["gguf", "safetensors"])
def test_the_tokens_bytes_are_the_texts_whatever_the_script(
    kind: str, tiny_gguf: Path, tiny_safetensors: Path
) -> None:
    encode, _, spellings = open_tokenizer(tiny_gguf if kind == "gguf" else tiny_safetensors)
    own = read_text(Path(module.__file__).with_name("text.txt"))
    for text in (own, " leading", "hello\r\n\tthere  ", "अ一é🙂"):
        ids = encode(text)
        sizes = sizes_of(text.encode(), spellings(ids))
        assert sizes is not None and len(sizes) == len(ids)
        assert sum(sizes) == len(text.encode())


def test_a_chunks_bytes_are_those_of_its_part_of_the_text(tiny_gguf: Path, tmp_path: Path) -> None:
    made = prepared(tiny_gguf, tmp_path)
    encode, _, _ = open_tokenizer(tiny_gguf)
    assert made.bytes is not None
    for ids, sizes, start in zip(made.chunks, made.bytes, made.starts, strict=True):
        assert encode(TEXT.encode()[start : start + sum(sizes)].decode()) == ids


def test_sentencepiece_tokens_are_read_without_the_space_put_before_the_text() -> None:
    spellings = read_tokens(["▁hel", "lo", "▁w", "<0xC3>", "<0xA9>"])
    assert sizes_of("hello wé".encode(), spellings) == [3, 2, 2, 1, 1]
    assert sizes_of(b"Hello", spellings) is None  # a tokenizer that changes the text


def test_every_part_of_the_labs_own_text_is_found() -> None:
    own = Path(module.__file__)
    text = read_text(own.with_name("text.txt"))
    sections = read_sections(read_text(own.with_name("text.sections.yaml")), text, "own")
    assert len(sections) == 22 and sections[0].start == 0
    assert {"prose", "code", "mathematics", "Hindi", "Chinese"} <= {s.name for s in sections}
    starts = [s.start for s in sections]
    assert starts == sorted(set(starts))


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("sections: [{section: a, from: Nowhere}]", "a: no line of the text"),
        ("sections: [{section: a, from: two}, {section: b, from: one}]", "b: no line of the text"),
        ("sections: [{section: a, from: ''}]", "a: no line of the text"),
        ("sections: [{name: a}]", "is not YAML with a list 'sections'"),
        ("- one", "is not YAML with a list 'sections'"),
        ("{", "is not YAML with a list 'sections'"),
    ],
)
def test_sections_that_are_not_in_the_text_are_named_in_one_line(written: str, said: str) -> None:
    with pytest.raises(LabError, match=rf"mine\.yaml: {said}") as caught:
        read_sections(written, "one\ntwo\n", "mine.yaml")
    assert "\n" not in str(caught.value)
