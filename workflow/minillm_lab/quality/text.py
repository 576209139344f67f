"""The evaluation text and the questions as token ids: the same for every variant of a model.

The ids come from the tokenizer of the model's source, as the prompt's do. The text is cut as
llama-perplexity cuts it: chunks of ``context`` tokens, what is left at the end dropped, and each
chunk's first token replaced by the begin-of-text token where the model's tokenizer adds one.
"""

import argparse
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from minillm_lab.command import run
from minillm_lab.errors import LabError, first_line
from minillm_lab.models.header import read_header
from minillm_lab.quality.failure import tried
from minillm_lab.quality.questions import Question, load_questions, tokenized
from minillm_lab.records import Record, write_record

Tokenize = Callable[[str], list[int]]


class Protocol(Record):
    """How the text is cut and which tokens are scored."""

    name: str
    context: int = Field(ge=4, le=1 << 20, description="tokens of a chunk")
    score_from: int = Field(ge=1, description="first position whose prediction is scored")
    chunks: int | None = Field(None, ge=2, description="at most so many, spread over the text")

    @property
    def scored(self) -> int:
        """Scored tokens of a chunk: the last one predicts nothing that is known."""
        return self.context - 1 - self.score_from


class EvaluationText(Record):
    """``results/quality/texts/<model>.json``."""

    schema_version: Literal[1] = 1
    text_sha256: str = Field(pattern="^[0-9a-f]{64}$")
    questions_sha256: str | None = Field(pattern="^[0-9a-f]{64}$")
    protocol: Protocol
    begins: bool = Field(description="each chunk begins with the begin-of-text token")
    chunks: list[list[int]]
    questions: list[Question]

    @model_validator(mode="after")
    def has_its_shape(self) -> "EvaluationText":
        if self.protocol.scored < 1 or len(self.chunks) < 1:
            raise ValueError("nothing to score")
        if any(len(chunk) != self.protocol.context for chunk in self.chunks):
            raise ValueError("a chunk has another length than the protocol's context")
        return self

    @property
    def largest_id(self) -> int:
        """The largest token id in it, and -1 where one is negative."""
        lists = self.chunks + [ids for q in self.questions for ids in (q.prompt, *q.choices)]
        low, high = min(map(min, lists)), max(map(max, lists))
        return high if low >= 0 else -1


def open_tokenizer(path: Path) -> tuple[Tokenize, int | None]:
    """A tokenizer that takes special tokens for plain text, and the begin token if it adds one."""
    if path.is_dir():
        from transformers import AutoTokenizer

        try:
            tokenizer: Any = AutoTokenizer.from_pretrained(
                path, local_files_only=True, trust_remote_code=False
            )
        except (OSError, ValueError) as error:
            raise LabError(f"{path}: no usable tokenizer: {first_line(error)}") from error

        def encode(text: str) -> list[int]:
            ids: list[int] = tokenizer(
                text, add_special_tokens=False, split_special_tokens=True, verbose=False
            )["input_ids"]
            return ids

        begin = tokenizer.bos_token_id
        return encode, begin if begin in tokenizer("a")["input_ids"][:1] else None
    import llama_cpp

    from minillm_lab.runtimes.llama_library import load_model, tokenize

    model = load_model(path, vocab_only=True)
    vocab = llama_cpp.llama_model_get_vocab(model)
    adds = llama_cpp.llama_vocab_get_add_bos(vocab)
    begin = llama_cpp.llama_vocab_bos(vocab) if adds else None
    return lambda text: tokenize(model, text, special=False), begin


def cut(ids: list[int], protocol: Protocol, begin: int | None) -> list[list[int]]:
    """Chunks of the text's ids. Raises LabError where there are fewer than two."""
    if begin is not None:
        ids = [begin, *ids]
    size = protocol.context
    count = len(ids) // size
    if count < 2:
        raise LabError(
            f"quality.text: {len(ids)} tokens are too few for intervals: two chunks of {size} at"
            " least; give a longer text or lower 'quality.context'"
        )
    wanted = min(count, protocol.chunks or count)
    starts = [size * (i * count // wanted) for i in range(wanted)]
    chunks = [ids[start : start + size] for start in starts]
    return chunks if begin is None else [[begin, *chunk[1:]] for chunk in chunks]


def read_text(path: Path) -> str:
    """A text file as UTF-8, line ends as they are. Raises LabError where it is none."""
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise LabError(f"{path}: is not UTF-8 text (byte {error.start})") from error
    except OSError as error:
        raise LabError(f"{path}: {error.strerror}") from error


def evaluation_text(
    tokenizer: Path, text: Path, questions: Path | None, protocol: Protocol
) -> EvaluationText:
    """Everything that the reference and the variants are given."""
    content = read_text(text)
    asked = read_text(questions) if questions else None
    encode, begin = open_tokenizer(tokenizer)
    return EvaluationText(
        text_sha256=hashlib.sha256(content.encode()).hexdigest(),
        questions_sha256=hashlib.sha256(asked.encode()).hexdigest() if asked else None,
        protocol=protocol,
        begins=begin is not None,
        chunks=cut(encode(content), protocol, begin),
        questions=[
            tokenized(question, encode, begin)
            for question in (load_questions(asked, str(questions)) if asked else [])
        ],
    )


def context_of(source: Path) -> int | None:
    """Tokens of context that a model is made for, by its GGUF file or its folder; None: unsaid."""
    if not source.is_dir():
        return read_header(source).context
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
    made = evaluation_text(arguments.tokenizer, arguments.text, arguments.questions, protocol)
    write_record(arguments.output, made)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokenizer", type=Path, required=True, help="a folder or a GGUF file")
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--questions", type=Path, help="YAML; without it none are asked")
    parser.add_argument("--protocol", required=True, help="how to cut and score, as JSON")
    parser.add_argument("--output", type=Path, required=True)
    run(tried(main), parser)
