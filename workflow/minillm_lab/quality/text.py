"""The evaluation text and the questions as token ids, the same for every variant of a model.

The ids come from the tokenizer of the model's source, as the prompt's do. The text is cut as
llama-perplexity cuts it: into chunks of ``context`` tokens, with a rest at the end dropped. If the
model's tokenizer adds a begin-of-text token, that token replaces each chunk's first one.

Of the long text, which is one piece, there are passages of several lengths that end with it.
"""

import argparse
import hashlib
import json
from itertools import accumulate
from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from minillm_lab.header import read_gguf
from minillm_lab.jobs.command import run, say
from minillm_lab.jobs.errors import LabError
from minillm_lab.jobs.files import gguf_files, read_text
from minillm_lab.quality.questions import Question, load_questions, tokenized
from minillm_lab.quality.tokenizer import open_tokenizer, sizes_of
from minillm_lab.quality.unmeasured import tried
from minillm_lab.records import Record, write_record

SHORTEST_LONG = 64  # tokens
PROMPTS = Path(__file__).with_name("prompts.yaml")


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
    long_contexts: list[int] = Field(
        [], description="The end of the long text is scored in contexts of these many tokens."
    )

    @property
    def scored(self) -> int:
        """The number of scored tokens in a chunk; the last token predicts no known one."""
        return self.context - 1 - self.score_from

    @property
    def end(self) -> int:
        """The number of tokens at the long text's end that are scored in each long context."""
        return min(self.long_contexts, default=0) // 2


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
    long: list[list[int]] = Field(
        [], description="It holds a passage for each long context; all end with the long text."
    )
    long_text_sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$")
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
        contexts = self.protocol.long_contexts
        if [len(ids) for ids in self.long] != contexts or contexts != sorted({*contexts}):
            raise ValueError("the long passages have other lengths than the protocol's")
        if contexts and contexts[0] < SHORTEST_LONG:
            raise ValueError(f"a long context has fewer than {SHORTEST_LONG} tokens")
        return self

    @property
    def passages(self) -> list[tuple[list[int], int]]:
        """Every passage, and its first position whose prediction is scored: chunks, then long ones.

        Of a long passage its end is scored, and of the longest also what comes before.
        """
        first, end = self.protocol.score_from, self.protocol.end
        found = [(ids, first) for ids in self.chunks]
        for ids in self.long:
            only_end = len(ids) - 1 - end
            found.append((ids, min(first, only_end) if ids is self.long[-1] else only_end))
        return found

    @property
    def largest_id(self) -> int:
        """The largest token id in it; -1 if any is negative."""
        lists = (
            self.chunks
            + self.long
            + self.prompts
            + [ids for q in self.questions for ids in (q.prompt, *q.choices)]
        )
        low, high = min(map(min, lists)), max(map(max, lists))
        return high if low >= 0 else -1


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


def ends(ids: list[int], contexts: list[int], begin: int | None) -> list[list[int]]:
    """The last tokens of the long text, for each context as many as it holds.

    Raises LabError if the text is shorter than the longest.
    """
    if contexts and len(ids) < contexts[-1]:
        raise LabError(
            f"quality.long_text: {len(ids)} tokens are fewer than the {contexts[-1]} of"
            " 'quality.long_contexts'; give a longer text, or leave that context out"
        )
    found = [ids[-context:] for context in contexts]
    return found if begin is None else [[begin, *passage[1:]] for passage in found]


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
    long_text: Path | None = None,
) -> EvaluationText:
    """Texts, prompts and questions as the reference and the variants are given them."""
    content, long = read_text(text), read_text(long_text) if long_text else None
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
        long=ends(encode(long), protocol.long_contexts, begin) if long is not None else [],
        long_text_sha256=hashlib.sha256(long.encode()).hexdigest() if long is not None else None,
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
    if made_for and (beyond := [c for c in protocol.long_contexts if c > made_for]):
        said = ", ".join(map(str, beyond))
        say(f"long contexts: left out, since the model is made for {made_for} tokens: {said}")
        protocol.long_contexts = [c for c in protocol.long_contexts if c <= made_for]
    made = evaluation_text(
        arguments.tokenizer,
        arguments.text,
        arguments.questions,
        protocol,
        arguments.sections,
        arguments.long_text if protocol.long_contexts else None,
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
    parser.add_argument(
        "--long-text", type=Path, nargs="?", help="a text in one piece, for long contexts"
    )
    parser.add_argument("--protocol", required=True, help="how to cut and score, as JSON")
    parser.add_argument("--output", type=Path, required=True)
    run(tried(main), parser)
