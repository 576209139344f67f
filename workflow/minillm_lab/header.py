"""The header of a model file, checked strictly before a runtime sees the file.

A downloaded file is not trusted. A GGUF file's header (versions 2 and 3, little-endian) is read
with bounds on every count and length. Each tensor must lie where its runtime expects it, inside the
file, and the parts of a split must make up one model.
"""

import mmap
import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any, Protocol

from minillm_lab.jobs.errors import LabError
from minillm_lab.jobs.files import gguf_files

MOST_ENTRIES = 1 << 16  # key-value pairs, and tensors
MOST_ELEMENTS = 1 << 22  # of all arrays together; the largest vocabularies have 1.3 million
LARGEST_HEADER = 1 << 28  # bytes
LONGEST_KEY = (1 << 16) - 1
LONGEST_STRING = 1 << 26
LONGEST_TENSOR_NAME = 63  # GGML_MAX_NAME with its final zero is 64
LONGEST_TEMPLATE = 1 << 18  # bytes of a chat template; the longest in use have 30,000
MOST_DIMENSIONS = 4
WRONG, WAY_OUT = "not a GGUF file that can be used", "; fetch it again, or name another"
STRING, ARRAY, UINT16, UINT32, INT32 = 8, 9, 2, 4, 5
KEPT = {  # key, or the end of one: the type that it must have
    "general.architecture": STRING,
    "general.type": STRING,
    "general.file_type": UINT32,
    ".context_length": UINT32,
    "split.no": UINT16,
    "split.count": UINT16,
    "split.tensors.count": INT32,
    "quantize.imatrix.file": STRING,
    "quantize.imatrix.dataset": STRING,
    "quantize.imatrix.entries_count": UINT32,
    "quantize.imatrix.chunks_count": UINT32,
    "imatrix.chunk_count": UINT32,
}
MADE_BY = "quantize.imatrix."  # how the keys begin that tell of an importance matrix
DATASETS = "imatrix.datasets"  # names of texts, in a file that is a matrix
BYTES = {0: 1, 1: 1, 2: 2, 3: 2, UINT32: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # by value type
DEFAULT_ALIGNMENT = 32
Arrays = dict[tuple[str, int], int]  # bytes of arrays of strings, by key and number of elements
UNQUANTIZED_TENSORS = ("F64", "F32", "BF16", "F16", "I64", "I32", "I16", "I8")


@dataclass(frozen=True)
class Tensor:
    """One tensor, with its type, shape (the row's length first), size and place."""

    name: str
    type: str
    shape: tuple[int, ...]
    bytes: int
    offset: int  # in bytes, from where the tensors' data begin


@dataclass(frozen=True)
class Header:
    """The parts of a GGUF file's header that the lab uses."""

    tensors: list[Tensor]
    data: int  # the byte at which the tensors' data begin
    context: int | None  # tokens that the model is made for; None if it does not say
    file_type: int | None  # general.file_type, a number of llama.cpp's; None if it does not say
    keys: dict[str, int]  # bytes of each key with its value
    architecture: str | None = None  # general.architecture; None if it does not say
    kind: str | None = None  # general.type, as model or mmproj; None if it does not say
    part: int = 0  # number of this part of a split, from 0 on
    parts: int = 1  # number of parts of the split; 1 for a whole file
    split_tensors: int | None = None  # number of tensors in all parts together
    imatrix: dict[str, Any] | None = None  # what it says of the matrix that it was made with
    dataset: str | None = None  # of a file that is an importance matrix: its text, its chunks
    chunks: int | None = None

    @property
    def type(self) -> str:
        """The quantization type of the whole file, as llama.cpp spells it, or ``unknown``.

        Without quantized tensors it is the type of most weights, whatever the file says.
        """
        from minillm_lab.ggml import LlamaFileType

        if any(tensor.type not in UNQUANTIZED_TENSORS for tensor in self.tensors):
            known = self.file_type in list(LlamaFileType)
            name = LlamaFileType(self.file_type).name.partition("_")[2] if known else "unknown"
            return "unknown" if name in UNQUANTIZED_TENSORS else name
        weights = Counter(unknown=0)
        for tensor in self.tensors:
            if tensor.type in ("F32", "F16", "BF16"):
                weights[tensor.type] += prod(tensor.shape)
        return weights.most_common(1)[0][0]


class Bytes(Protocol):
    """A file's bytes: all that the reading of a header asks of them."""

    def __len__(self) -> int: ...

    def __getitem__(self, place: slice) -> bytes: ...


class _Cursor:
    """A place in the header; reading beyond its end is a ValueError."""

    def __init__(self, data: Bytes, arrays: Arrays) -> None:
        self.data, self.at, self.end = data, 0, min(len(data), LARGEST_HEADER)
        self.elements, self.arrays = MOST_ELEMENTS, arrays

    def number(self, kind: str = "Q") -> int:
        start = self.at
        self.skip(struct.calcsize(kind))
        (value,) = struct.unpack(f"<{kind}", self.data[start : self.at])
        return int(value)

    def count(self, counted: str, most: int) -> int:
        value = self.number()
        if value > most:
            raise ValueError(f"it claims {value} {counted}; {most} are the most there can be")
        return value

    def skip(self, size: int) -> None:
        self.at += size
        if self.at > self.end:
            raise ValueError("its header is cut short, or a length in it lies")

    def text(self, name: str, longest: int) -> str:
        size = self.count(f"bytes of {name}", longest)
        start = self.at
        self.skip(size)
        try:
            return self.data[start : self.at].decode()
        except UnicodeDecodeError:
            raise ValueError(f"{name} at byte {start} is not UTF-8") from None

    def elements_of(self, key: str) -> int:
        count = self.count(f"elements of {key!r:.80}", self.elements)
        self.elements -= count
        return count


def read_header(path: Path, name: str = "") -> Header:
    """Read a whole GGUF file's header and check its claims against the file's size.

    Messages call the file ``name``. Raises LabError if the header is wrong, or if the file is one
    part of a split. It takes time in proportion to the header, which has at most LARGEST_HEADER
    bytes, and hardly any memory.
    """
    header = _read_file(path, name or str(path))
    if header.parts > 1:
        raise LabError(
            f"{name or path}: it is part {header.part + 1} of a GGUF split in {header.parts};"
            " name all its parts in the config (minillm-lab new writes it)"
        )
    return header


def read_gguf(weights: Path, name: str = "") -> Header:
    """The same for a GGUF file, or for a folder with all parts of one."""
    if not weights.is_dir():
        return read_header(weights, name)
    files = gguf_files(weights)
    headers = [_read_file(file, f"{name or weights}: {file.name}") for file in files]
    return joined(headers, name or str(weights))


def joined(headers: Sequence[Header], name: str) -> Header:
    """The header of a GGUF from those of its parts in order; ``data`` is that of the first part.

    Raises LabError unless they are all parts of one split.
    """
    if not headers:
        raise LabError(f"{name}: no *.gguf there")
    for number, header in enumerate(headers):
        if (header.part, header.parts) != (number, len(headers)):
            raise LabError(
                f"{name}: file {number + 1} of {len(headers)} says that it is part"
                f" {header.part + 1} of {header.parts}; name all parts of one split, in order"
            )
    tensors = [tensor for header in headers for tensor in header.tensors]
    names = {tensor.name for tensor in tensors}
    told = {header.split_tensors for header in headers}
    if len(names) < len(tensors) or told - {None, len(tensors)}:
        raise LabError(
            f"{name}: its parts are of different splits: they hold {len(tensors)} tensors of"
            f" {len(names)} names, and say that there are"
            f" {' or '.join(sorted(str(number) for number in told))}; fetch them again"
        )
    return replace(headers[0], tensors=tensors, part=0, parts=1)


def parse_header(data: Bytes, name: str, arrays: Arrays | None = None) -> Header:
    """Read the header of a GGUF file, whole or a part, and check its claims against its bytes.

    ``arrays`` collects the sizes of arrays; one that another file put there is skipped unread.
    Raises LabError if the header is wrong.
    """
    try:
        return _read(_Cursor(data, {} if arrays is None else arrays))
    except ValueError as error:
        raise LabError(f"{name}: {WRONG}: {error}{WAY_OUT}") from None


def _read_file(path: Path, name: str) -> Header:
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return parse_header(data, name)
    except OSError as error:
        raise LabError(f"{name}: {error.strerror or error}") from error
    except ValueError as error:  # mmap's own: an empty file
        raise LabError(f"{name}: {WRONG}: {error}{WAY_OUT}") from None


def _read(cursor: _Cursor) -> Header:
    if cursor.data[:4] != b"GGUF":
        raise ValueError("it does not begin with GGUF")
    cursor.skip(4)
    if (version := cursor.number("I")) not in (2, 3):
        raise ValueError(f"its version is {version}; 2 and 3 are known")
    tensors = cursor.count("tensors", MOST_ENTRIES)
    alignment, kept, keys = _values(cursor, cursor.count("keys", MOST_ENTRIES))
    entries = [_tensor(cursor) for _ in range(tensors)]
    parts = kept.get("split.count", 1) or 1
    made_by = {k.removeprefix(MADE_BY): kept.get(k) for k in sorted(keys) if k.startswith(MADE_BY)}
    if not entries and parts == 1:
        raise ValueError("it holds no tensors")
    begin = cursor.at + -cursor.at % alignment
    _check_places(entries, begin, alignment, len(cursor.data))
    return Header(
        tensors=entries,
        data=begin,
        context=kept.get(".context_length"),
        file_type=kept.get("general.file_type"),
        keys=keys,
        architecture=kept.get("general.architecture"),
        kind=kept.get("general.type"),
        part=kept.get("split.no", 0),
        parts=parts,
        split_tensors=kept.get("split.tensors.count"),
        imatrix={k: v for k, v in made_by.items() if v is not None} if made_by else None,
        dataset=kept.get(DATASETS),
        chunks=kept.get("imatrix.chunk_count"),
    )


def _values(cursor: _Cursor, count: int) -> tuple[int, dict[str, Any], dict[str, int]]:
    """Read past the key-value pairs; returns the alignment, KEPT, and the bytes of each pair."""
    alignment, kept, begins = DEFAULT_ALIGNMENT, dict[str, Any](), dict[str, int]()
    for _ in range(count):
        begin = cursor.at
        key = cursor.text("a key", LONGEST_KEY)
        if key in begins or not key:
            raise ValueError(f"the key {key!r:.80} stands twice, or is empty")
        begins[key] = begin
        kind, start = cursor.number("I"), cursor.at
        if key == "general.alignment":
            alignment = cursor.number("I") if kind == UINT32 else 0
            if alignment < 1 or alignment & (alignment - 1):
                raise ValueError("general.alignment is not a power of two")
            continue
        name = key if key in KEPT else f".{key.rpartition('.')[2]}"
        if KEPT.get(name) == kind:
            kept[name] = (
                cursor.text(f"{key!r:.80}", LONGEST_KEY)
                if kind == STRING
                else cursor.number({UINT16: "H", INT32: "i", UINT32: "I"}[kind])
            )
            continue
        _skip_value(cursor, key, kind)
        if key == DATASETS and kind == ARRAY:
            kept[key] = _first_text(cursor, key, start)
        if key.startswith("tokenizer.chat_template") and cursor.at - start > LONGEST_TEMPLATE:
            raise ValueError(f"{key:.80} has {cursor.at - start} bytes, {LONGEST_TEMPLATE} at most")
    sizes = (end - begin for begin, end in pairwise([*begins.values(), cursor.at]))
    return alignment, kept, dict(zip(begins, sizes, strict=True))


def _first_text(cursor: _Cursor, key: str, start: int) -> str | None:
    """The first element of the array of strings that begins at ``start``, if it is one."""
    end, cursor.at = cursor.at, start
    texts = cursor.number("I") == STRING and cursor.number()
    found = cursor.text(key, LONGEST_KEY) if texts else None
    cursor.at = end
    return found


def _skip_value(cursor: _Cursor, key: str, kind: int) -> None:
    if kind == STRING:
        cursor.skip(cursor.count(f"bytes of {key!r:.80}", LONGEST_STRING))
    elif kind == ARRAY:
        kind = cursor.number("I")
        count = cursor.elements_of(key)
        if kind == STRING and (key, count) in cursor.arrays:
            cursor.skip(cursor.arrays[key, count])
        elif kind == STRING:
            start = cursor.at
            for _ in range(count):
                cursor.skip(cursor.number())
            cursor.arrays[key, count] = cursor.at - start
        elif kind in BYTES:
            cursor.skip(count * BYTES[kind])
        else:
            raise ValueError(f"{key!r:.80} is an array of arrays, or of the unknown type {kind}")
    elif kind in BYTES:
        cursor.skip(BYTES[kind])
    else:
        raise ValueError(f"{key!r:.80} is of the unknown type {kind}")


def _tensor(cursor: _Cursor) -> Tensor:
    from minillm_lab.ggml import GGML_QUANT_SIZES, GGMLQuantizationType

    name = cursor.text("a tensor's name", LONGEST_TENSOR_NAME)
    dimensions = cursor.number("I")
    if not 1 <= dimensions <= MOST_DIMENSIONS:
        raise ValueError(f"tensor {name!r} has {dimensions} dimensions")
    shape = tuple(cursor.number() for _ in range(dimensions))
    number, offset = cursor.number("I"), cursor.number()
    if number not in list(GGMLQuantizationType):
        raise ValueError(f"tensor {name!r} is of the unknown type {number}")
    type_ = GGMLQuantizationType(number)
    block, block_bytes = GGML_QUANT_SIZES[type_]
    if not 0 < prod(shape) < 1 << 63 or shape[0] % block:
        raise ValueError(f"tensor {name!r} cannot be of the shape {shape} in {type_.name}")
    return Tensor(name, type_.name, shape, prod(shape) // block * block_bytes, offset)


def _check_places(entries: list[Tensor], begin: int, alignment: int, size: int) -> None:
    """Raise ValueError unless all tensors lie in order, aligned, apart and inside the file."""
    if len({tensor.name for tensor in entries}) < len(entries):
        raise ValueError("two of its tensors have one name")
    expected = 0
    for tensor in entries:
        if tensor.offset != expected:
            raise ValueError(
                f"tensor {tensor.name!r} lies at {tensor.offset}, not at {expected} where the one"
                " before it ends"
            )
        if begin + tensor.offset + tensor.bytes > size:
            raise ValueError(
                f"it is cut short: tensor {tensor.name!r} ends at byte"
                f" {begin + tensor.offset + tensor.bytes}, the file at {size}"
            )
        expected += tensor.bytes + -tensor.bytes % alignment
