"""The evaluation text and the questions as token ids, the same for every variant of a model.

The ids come from the tokenizer of the model's source, as the prompt's do. The text is cut as
llama-perplexity cuts it: into chunks of ``context`` tokens, with a rest at the end dropped. If the
model's tokenizer adds a begin-of-text token, that token replaces each chunk's first one.
"""

import argparse
import hashlib
import json
import re
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml
from pydantic import Field, ValidationError, model_validator

from minillm_lab.header import read_gguf
from minillm_lab.jobs.command import run
from minillm_lab.jobs.errors import LabError, first_line
from minillm_lab.jobs.files import gguf_files, read_text
from minillm_lab.quality.questions import Question, load_questions, tokenized
from minillm_lab.quality.unmeasured import tried
from minillm_lab.records import Record, write_record

Tokenize = Callable[[str], list[int]]
SPACE = b" "
PROMPTS = Path(__file__).with_name("prompts.yaml")


class Tokenizer(NamedTuple):
    """A tokenizer that treats special tokens as plain text."""

    encode: Tokenize
    begin: int | None  # the begin-of-text token, if the tokenizer adds one
    spellings: Callable[[list[int]], list[list[bytes]]]  # each token's bytes, in each possible way


class Protocol(Record):
    """How the text is cut and which tokens are scored."""

    name: str
    context: int = Field(ge=4, le=1 << 20, description="A chunk has this many tokens.")
    score_from: int = Field(
        ge=1, description="This is the first position of a chunk whose prediction is scored."
    )
    chunks: int | None = Field(
        None, ge=2, description="At most this many chunks are scored, spread over the text."
    )

    @property
    def scored(self) -> int:
        """The number of scored tokens in a chunk; the last token predicts no known one."""
        return self.context - 1 - self.score_from


class Section(Record):
    """A part of the text with a name; it ends where the next one begins."""

    name: str = Field(min_length=1, max_length=80)
    start: int = Field(ge=0, description="The section begins at this byte of the text.")


class EvaluationText(Record):
    """``results/quality/texts/<model>.json``: text, prompts and questions as token ids."""

    schema_version: Literal[2] = 2
    text_sha256: str = Field(pattern="^[0-9a-f]{64}$")
    questions_sha256: str | None = Field(pattern="^[0-9a-f]{64}$")
    protocol: Protocol
    begins: bool = Field(description="Each chunk begins with the begin-of-text token.")
    chunks: list[list[int]]
    bytes: list[list[int]] | None = Field(
        description="It holds the bytes of each token of each chunk; null if the tokens do not"
        " spell"
        " the text."
    )
    starts: list[int] = Field(
        description="Each chunk starts at this byte of the text; empty if bytes is null."
    )
    sections: list[Section] = Field(
        description="It holds the sections in order; empty if the text has none."
    )
    prompts: list[list[int]] = Field(description="The reference replies to these prompts.")
    questions: list[Question]

    @model_validator(mode="after")
    def has_its_shape(self) -> "EvaluationText":
        if any(not 1 <= len(ids) <= 4096 for ids in self.prompts):
            raise ValueError("a prompt is empty or too long")
        if self.bytes is not None and (
            [len(sizes) for sizes in self.bytes] != [len(ids) for ids in self.chunks]
            or len(self.starts) != len(self.chunks)
            or min(map(min, self.bytes)) < 0
            or max(map(max, self.bytes)) > 1 << 20
        ):
            raise ValueError("the bytes do not fit the chunks")
        if self.protocol.scored < 1 or len(self.chunks) < 1:
            raise ValueError("there is no token to score")
        if any(len(chunk) != self.protocol.context for chunk in self.chunks):
            raise ValueError("a chunk has another length than the protocol's context")
        return self

    @property
    def largest_id(self) -> int:
        """The largest token id in it; -1 if any is negative."""
        lists = (
            self.chunks
            + self.prompts
            + [ids for q in self.questions for ids in (q.prompt, *q.choices)]
        )
        low, high = min(map(min, lists)), max(map(max, lists))
        return high if low >= 0 else -1


def open_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer of a folder or a GGUF file. Raises LabError if there is none."""
    if not gguf_files(path):
        from transformers import AutoTokenizer

        try:
            tokenizer: Any = AutoTokenizer.from_pretrained(
                path, local_files_only=True, trust_remote_code=False
            )
        except (OSError, ValueError) as error:
            raise LabError(
                f"{path}: no usable tokenizer: {first_line(error)}; add the tokenizer's files"
            ) from error

        def encode(text: str) -> list[int]:
            ids: list[int] = tokenizer(
                text, add_special_tokens=False, split_special_tokens=True, verbose=False
            )["input_ids"]
            return ids

        def spellings(ids: list[int]) -> list[list[bytes]]:
            return read_tokens(tokenizer.convert_ids_to_tokens(ids))

        begin = tokenizer.bos_token_id
        adds = begin in tokenizer("a")["input_ids"][:1]
        return Tokenizer(encode, begin if adds else None, spellings)
    import llama_cpp

    from minillm_lab.runtimes.llama_library import load_model, piece, tokenize

    model = load_model(path, vocab_only=True)
    vocab = llama_cpp.llama_model_get_vocab(model)
    adds = llama_cpp.llama_vocab_get_add_bos(vocab)
    return Tokenizer(
        lambda text: tokenize(model, text, special=False),
        llama_cpp.llama_vocab_bos(vocab) if adds else None,
        lambda ids: [[piece(model, i) for i in ids]],
    )


def read_tokens(tokens: list[str]) -> list[list[bytes]]:
    """The bytes that tokens stand for, in each of the two ways that vocabularies write bytes.

    Byte-level vocabularies have a printable symbol for each byte. SentencePiece's have "▁" for a
    space and "<0xE0>" for a byte that no token holds.
    """
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    byte_of = {symbol: byte for byte, symbol in bytes_to_unicode().items()}

    def by_level(token: str) -> bytes:
        known = all(symbol in byte_of for symbol in token)
        return bytes(map(byte_of.__getitem__, token)) if known else token.encode()

    def by_piece(token: str) -> bytes:
        if re.fullmatch("<0x[0-9A-F]{2}>", token):
            return bytes([int(token[3:5], 16)])
        return token.replace("▁", " ").encode()

    return [[by_level(token) for token in tokens], [by_piece(token) for token in tokens]]


def sizes_of(content: bytes, spellings: list[list[bytes]]) -> list[int] | None:
    """The number of bytes of each token; None if the tokens do not spell the text.

    A space that the tokenizer puts before the text is not counted.
    """
    for spelled in spellings:
        whole, sizes = b"".join(spelled), list(map(len, spelled))
        if whole == SPACE + content and sizes:
            sizes[0] -= 1
        if whole in (content, SPACE + content):
            return sizes
    return None


def places(tokens: int, protocol: Protocol) -> list[int]:
    """The first token of each chunk of a text. Raises LabError if there are fewer than two."""
    size = protocol.context
    count = tokens // size
    if count < 2:
        raise LabError(
            f"quality.text: {tokens} tokens are too few for intervals, which need two chunks of"
            f" {size}; give a longer text or lower 'quality.context'"
        )
    wanted = min(count, protocol.chunks or count)
    return [size * (i * count // wanted) for i in range(wanted)]


def cut(ids: list[int], protocol: Protocol, begin: int | None) -> list[list[int]]:
    """The chunks of the text's ids. Raises LabError if there are fewer than two."""
    if begin is not None:
        ids = [begin, *ids]
    starts = places(len(ids), protocol)
    chunks = [ids[start : start + protocol.context] for start in starts]
    return chunks if begin is None else [[begin, *chunk[1:]] for chunk in chunks]


def read_sections(written: str, text: str, name: str) -> list[Section]:
    """Sections from YAML, which lists in order each name and the line of the text that begins it.

    Raises LabError with one line that names the section.
    """
    try:
        entries = [(str(e["section"]), str(e["from"])) for e in yaml.safe_load(written)["sections"]]
    except (yaml.YAMLError, TypeError, KeyError):
        raise LabError(
            f"{name}: is not YAML with a list 'sections' of {{section: …, from: a line}}; write it"
            " so"
        ) from None
    found, at = [], 0
    for section, line in entries:
        place = f"\n{text}".find(f"\n{line}", at)
        if place < 0 or not line:
            raise LabError(
                f"{name}: {section}: no line of the text after the previous section begins with"
                f" {line!r}; correct it"
            )
        at = place + 1
        try:
            found.append(Section(name=section, start=len(text[:place].encode())))
        except ValidationError as error:
            raise LabError(f"{name}: {section!r}: {error.errors()[0]['msg']}") from None
    return found


def evaluation_text(
    tokenizer: Path,
    text: Path,
    questions: Path | None,
    protocol: Protocol,
    sections: Path | None = None,
) -> EvaluationText:
    """Text, prompts and questions as the reference and the variants are given them."""
    content = read_text(text)
    asked = read_text(questions) if questions else None
    encode, begin, spellings = open_tokenizer(tokenizer)
    ids = encode(content)
    chunks = cut(ids, protocol, begin)
    sizes, starts = sizes_of(content.encode(), spellings(ids)), []
    if sizes is not None:
        sizes = sizes if begin is None else [0, *sizes]
        before = [0, *accumulate(sizes)]
        starts = places(len(sizes), protocol)
    return EvaluationText(
        text_sha256=hashlib.sha256(content.encode()).hexdigest(),
        questions_sha256=hashlib.sha256(asked.encode()).hexdigest() if asked else None,
        protocol=protocol,
        begins=begin is not None,
        chunks=chunks,
        bytes=None if sizes is None else [sizes[i : i + protocol.context] for i in starts],
        starts=[before[i] for i in starts],
        sections=read_sections(read_text(sections), content, str(sections)) if sections else [],
        prompts=[
            ([] if begin is None else [begin]) + encode(f"Question: {prompt}\nAnswer:")
            for prompt in yaml.safe_load(read_text(PROMPTS))["prompts"]
        ],
        questions=[
            tokenized(question, encode, begin)
            for question in (load_questions(asked, str(questions)) if asked else [])
        ],
    )


def context_of(source: Path) -> int | None:
    """Tokens of context that a model is made for; None if its GGUF file or folder does not say."""
    if gguf_files(source):
        return read_gguf(source).context
    try:
        said = json.loads((source / "config.json").read_bytes())["max_position_embeddings"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return said if isinstance(said, int) else None


def main(arguments: argparse.Namespace) -> None:
    protocol = Protocol(**json.loads(arguments.protocol))
    made_for = context_of(arguments.tokenizer)
    if made_for and protocol.context > made_for:
        raise LabError(
            f"quality.context: {protocol.context} tokens are more than the {made_for} that the"
            " model is made for; lower it"
        )
    made = evaluation_text(
        arguments.tokenizer, arguments.text, arguments.questions, protocol, arguments.sections
    )
    write_record(arguments.output, made)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokenizer", type=Path, required=True, help="a folder or a GGUF file")
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument(
        "--questions", type=Path, nargs="?", help="a YAML file; without it, none are asked"
    )
    parser.add_argument(
        "--sections", type=Path, nargs="?", help="a YAML file; without it, there are none"
    )
    parser.add_argument("--protocol", required=True, help="how to cut and score, as JSON")
    parser.add_argument("--output", type=Path, required=True)
    run(tried(main), parser)
