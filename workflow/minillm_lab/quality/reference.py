"""The reference: the unquantized model's predictions on the text, small enough to publish.

It is an uncompressed .npz file with a set of arrays per piece of the texts (so that reading and
writing stream) and a JSON document, ``facts``. It may come from elsewhere, so nothing in it is used
before its shape, type and range have been checked.
"""

import argparse
import json
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.lib import format as numpy_format
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from minillm_lab.jobs.command import run, say
from minillm_lab.jobs.errors import LabError
from minillm_lab.jobs.files import check_space, sha256_of, weight_files, written_whole
from minillm_lab.quality.divergence import TAIL, TOP, Compact, compress, log_normalizer
from minillm_lab.quality.evaluation import (
    REPLY,
    Piece,
    evaluate,
    evaluate_long,
    longest,
    opened,
    pieces,
)
from minillm_lab.quality.questions import choose_all
from minillm_lab.quality.text import EvaluationText
from minillm_lab.quality.unmeasured import pass_on, tried
from minillm_lab.records import Record, read_record

npy: Any = numpy_format  # untyped
LARGEST_FACTS = 64 << 20  # bytes
SEED = 4


class ReferenceFacts(Record):
    """The facts of a reference: its model, runtime, text and protocol."""

    schema_version: Literal[2] = 2
    kind: Literal["compact", "exact"]
    model: str
    weights: dict[str, str] = Field(description="It holds the SHA-256 of each file.")
    runtime: dict[str, Any]
    vocabulary: int = Field(ge=2, le=1 << 24)
    top: int = Field(ge=1)
    tail: int = Field(ge=0, le=1 << 16)
    text: EvaluationText
    answers: list[int] = Field(description="It holds the reference's choice by question.")
    replies: list[list[int]] = Field(
        description="It holds a greedy reply of REPLY tokens to each prompt."
    )


@dataclass(frozen=True)
class ReferencePiece:
    """The reference at the n scored tokens of one piece."""

    surprise: NDArray[np.float32]  # (n,): −log p of the text's next token, in nats
    best: NDArray[np.unsignedinteger]  # (n,): the most likely token
    compact: Compact | None
    exact: NDArray[np.float32] | None  # (n, vocabulary) log-probabilities


def make_reference(
    name: str, weights: Path, text: EvaluationText, settings: dict[str, Any], output: Path,
    exact: bool = False, top: int = TOP, tail: int = TAIL,
) -> None:  # fmt: skip
    """Evaluate the text and the questions; write the reference as a whole or not at all."""
    files = weight_files(weights)
    say(f"{name}: the reference loads {weights}")
    doing, random = f"reference of {name}", np.random.default_rng(SEED)
    with written_whole(output) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:

        def keep(evaluated: Iterable[tuple[Piece, NDArray[np.float32]]]) -> None:
            for piece, logits in evaluated:
                for key, values in _arrays(piece, logits, name, random, exact, top, tail).items():
                    _write(archive, f"{key}.{piece.number}", values)

        with opened(weights, settings, longest(text)) as loaded:
            vocabulary = loaded.vocabulary(text)
            per_token = 4 * vocabulary if exact else 6 * min(top + tail, vocabulary)
            check_space(output, sum(len(piece.next) for piece in pieces(text)) * per_token)
            keep(evaluate(loaded, text, doing))
            facts = ReferenceFacts(
                kind="exact" if exact else "compact",
                model=name,
                weights={file.name: sha256_of(file) for file in files},
                runtime=loaded.facts,
                vocabulary=vocabulary,
                top=min(top, vocabulary),
                tail=tail if top < vocabulary else 0,
                text=text,
                answers=choose_all(loaded.runtime, text.questions),
                replies=loaded.runtime.replies(text.prompts, REPLY),
            )
        keep(evaluate_long(weights, settings, text, doing))
        _write(archive, "facts", np.frombuffer(facts.model_dump_json().encode(), np.uint8))


def _arrays(
    piece: Piece, logits: NDArray[np.float32], name: str, random: np.random.Generator,
    exact: bool, top: int, tail: int,
) -> dict[str, NDArray[Any]]:  # fmt: skip
    """The arrays of a piece, by their names in the file."""
    normalizers = log_normalizer(logits)
    if not np.isfinite(normalizers).all():
        raise LabError(
            f"{name}: the model computes values that are not numbers, so it cannot be a reference;"
            " name another in quality.reference"
        )
    rows = np.arange(len(logits))
    arrays: dict[str, NDArray[Any]] = {
        "surprise": (normalizers - logits[rows, piece.next]).astype(np.float32)
    }
    if exact:
        return arrays | {"exact": (logits - normalizers[:, None]).astype(np.float32)}
    kept = compress(logits, normalizers, random, top, tail)
    return arrays | {key: getattr(kept, key) for key in Compact.__dataclass_fields__}


def _write(archive: zipfile.ZipFile, name: str, values: NDArray[Any]) -> None:
    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        npy.write_array(member, values, allow_pickle=False)


class Reference:
    """A reference file, opened and checked. Its methods raise LabError if the file is broken."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.archive = zipfile.ZipFile(path)
        except OSError as error:
            raise LabError(f"{path}: {error.strerror or error}") from None
        except (zipfile.BadZipFile, ValueError, NotImplementedError):
            raise self._broken("it is not an .npz file, or it was cut short") from None
        raw = self._array("facts", np.uint8, None, LARGEST_FACTS)
        try:
            self.facts = ReferenceFacts.model_validate_json(raw.tobytes())
        except ValidationError as error:
            first = error.errors()[0]
            raise self._broken(
                f"facts.{'.'.join(map(str, first['loc']))}: {first['msg']}"
            ) from None
        f = self.facts
        if not 0 <= f.text.largest_id < f.vocabulary or f.top > f.vocabulary:
            raise self._broken("a token id lies outside the vocabulary")
        if len(f.answers) != len(f.text.questions) or not {*f.answers} <= {0, 1, 2, 3}:
            raise self._broken("its choices do not fit its questions")
        if [len(ids) for ids in f.replies] != [REPLY] * len(f.text.prompts):
            raise self._broken("its replies do not fit its prompts")
        if not all(0 <= token < f.vocabulary for ids in f.replies for token in ids):
            raise self._broken("a reply names a token outside the vocabulary")
        self.tokens = [len(piece.next) for piece in pieces(f.text)]

    def __enter__(self) -> "Reference":
        return self

    def __exit__(self, *_: object) -> None:
        self.archive.close()

    def piece(self, number: int) -> ReferencePiece:
        """One piece, with types, shapes and ranges checked, and probabilities that sum to 1."""
        f, n = self.facts, self.tokens[number]
        surprise = self._array(f"surprise.{number}", np.float32, (n,))
        if f.kind == "exact":
            exact = self._array(f"exact.{number}", np.float32, (n, f.vocabulary))
            self._sums_to_one(np.exp(exact).sum(axis=1), number)
            return ReferencePiece(surprise, exact.argmax(axis=1).astype(np.uint32), None, exact)
        ids = np.uint16 if f.vocabulary <= 1 << 16 else np.uint32
        kept = Compact(
            top_ids=self._array(f"top_ids.{number}", ids, (n, f.top)),
            top=self._array(f"top.{number}", np.float32, (n, f.top)),
            tail_ids=self._array(f"tail_ids.{number}", ids, (n, f.tail)),
            tail=self._array(f"tail.{number}", np.float32, (n, f.tail)),
            tail_mass=self._array(f"tail_mass.{number}", np.float32, (n,)),
        )
        if max(int(x.max(initial=0)) for x in (kept.top_ids, kept.tail_ids)) >= f.vocabulary:
            raise self._broken(f"piece {number} names a token outside the vocabulary")
        if (kept.tail_mass < 0).any() or max(
            float(x.max(initial=-1)) for x in (kept.top, kept.tail)
        ) > 1e-3:
            raise self._broken(f"piece {number} holds values that are not probabilities")
        self._sums_to_one(np.exp(kept.top).sum(axis=1) + kept.tail_mass, number)
        return ReferencePiece(surprise, kept.top_ids[:, 0], kept, None)

    def _sums_to_one(self, sums: NDArray[np.float32], number: int) -> None:
        if np.abs(sums - 1).max() > 1e-3:
            raise self._broken(f"the probabilities of piece {number} do not sum to 1")

    def _array(
        self, name: str, kind: type, shape: tuple[int, ...] | None, limit: int | None = None
    ) -> NDArray[Any]:
        """A member of the archive, which is read only if it has the expected size."""
        try:
            if f"{name}.npy" not in self.archive.NameToInfo:
                raise self._broken(f"{name} is missing")
            member = self.archive.getinfo(f"{name}.npy")
            if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
                raise self._broken(f"{name} is compressed or encrypted")
            expected = limit or int(np.prod(shape or (0,))) * np.dtype(kind).itemsize
            if member.file_size > expected + (1 << 16):
                raise self._broken(f"{name} is larger than it should be")
            data = BytesIO(self.archive.read(member))
            read_header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
            found, fortran, dtype = read_header[npy.read_magic(data)](data)
        except (zipfile.BadZipFile, KeyError, ValueError, OSError, EOFError, NotImplementedError):
            raise self._broken(f"{name} cannot be read") from None
        rest = data.read()
        shape = (len(rest),) if shape is None else shape
        size = int(np.prod(shape)) * np.dtype(kind).itemsize
        if found != shape or dtype != np.dtype(kind) or fortran or len(rest) != size:
            raise self._broken(f"{name} is not {np.dtype(kind).name} of shape {shape}")
        values: NDArray[Any] = np.frombuffer(rest, kind).reshape(shape)
        if np.issubdtype(kind, np.floating) and not np.isfinite(values).all():
            raise self._broken(f"{name} is not finite")
        return values

    def _broken(self, why: str) -> LabError:
        return LabError(f"{self.path}: not a usable reference: {why}; delete it, or fetch it again")


def main(arguments: argparse.Namespace) -> None:
    pass_on(arguments.text)
    make_reference(
        arguments.model,
        arguments.weights,
        read_record(arguments.text, EvaluationText),
        json.loads(arguments.settings),
        arguments.output,
        arguments.exact,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="the model's name")
    parser.add_argument("--weights", type=Path, required=True, help="a GGUF file or a folder")
    parser.add_argument(
        "--text", type=Path, required=True, help="the text and questions, tokenized"
    )
    parser.add_argument("--settings", required=True, help="how to compute, as JSON")
    parser.add_argument("--exact", action="store_true", help="keep whole vectors")
    parser.add_argument("--output", type=Path, required=True)
    run(tried(main), parser)
