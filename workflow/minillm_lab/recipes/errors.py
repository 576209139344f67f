"""How far each type moves a model's weights, weighted by the inputs that they meet.

A type's error on a tensor is the sum over its weights of (what is stored − what was there)², times
the mean square of the weight's input, where an importance matrix says it. Within one group of
tensors the divergence that a type causes goes with it, so a few measured types tell of the others.
"""

import mmap
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from minillm_lab.ggml import GGML_QUANT_SIZES, GGMLQuantizationType, dequantize
from minillm_lab.header import Tensor, parse_header
from minillm_lab.jobs.files import gguf_files
from minillm_lab.models.mixture import NEEDS_MATRIX, NEVER_WITHOUT_MATRIX
from minillm_lab.models.quantize import Quantizer
from minillm_lab.recipes.groups import patterns

ANY = "Q8_0"  # a type of whole files, in which patterns may name any type
BLOCK = 1 << 22  # weights that are compared at once
Stored = tuple[Tensor, NDArray[np.uint8]]


@contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """An empty folder at a path, which is removed; so is what a process left there when killed."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def stored(weights: Path) -> dict[str, Stored]:
    """The tensors of a GGUF file, or of a folder of its parts, with their bytes by name."""
    found = {}
    for path in gguf_files(weights):
        with path.open("rb") as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        header, data = parse_header(content, str(path)), np.frombuffer(content, np.uint8)
        for tensor in header.tensors:
            start = header.data + tensor.offset
            found[tensor.name] = (tensor, data[start : start + tensor.bytes])
    return found


def error(before: Stored, after: Stored, means: NDArray[np.float32] | None) -> float:
    """The error of one tensor; without means every input counts as one."""
    width, rows = before[0].shape[0], int(np.prod(before[0].shape[1:]))
    weight = np.ones((1, width)) if means is None else means.reshape(-1, width).astype(np.float64)
    of_row = np.arange(rows) * len(weight) // rows  # with experts: which one's inputs
    values = []
    for tensor, data in (before, after):
        values.append((data.reshape(rows, -1), GGMLQuantizationType[tensor.type]))
    total, step = 0.0, max(1, BLOCK // width)
    for start in range(0, rows, step):
        old, new = (dequantize(data[start : start + step], type_) for data, type_ in values)
        apart = (new.astype(np.float64) - old) ** 2
        total += float((apart * weight[of_row[start : start + step]]).sum())
    return total


def can_hold(type_: str, tensor: Tensor, means: Mapping[str, NDArray[np.float32]]) -> bool:
    """Whether a type's blocks divide a tensor's rows and it has the matrix that it needs."""
    block, _ = GGML_QUANT_SIZES[GGMLQuantizationType[type_]]
    in_a_layer = tensor.name not in ("token_embd.weight", "output.weight")
    needs_it = NEEDS_MATRIX if in_a_layer or not means else NEVER_WITHOUT_MATRIX
    lacks = type_ in needs_it and tensor.name not in means
    return tensor.shape[0] % block == 0 and not lacks


def quantizable(unquantized: Quantizer) -> list[str]:
    """The tensors that llama.cpp quantizes; its ``type_`` is ANY."""
    return [name for name, type_ in unquantized.types().items() if type_ == ANY]


def as_they_are(unquantized: Quantizer) -> dict[str, str]:
    """The types of the tensors that llama.cpp quantizes, as they are stored now."""
    own = {tensor.name: tensor.type for tensor in unquantized.header.tensors}
    return {name: own[name] for name in quantizable(unquantized)}


def only(unquantized: Quantizer, types: Mapping[str, str]) -> Quantizer:
    """A quantizer that stores these tensors in these types, and leaves the rest as it is."""
    tensors = patterns({**as_they_are(unquantized), **types})
    made = Quantizer(unquantized.source, ANY, unquantized.imatrix, tensors)
    made.types()  # it checks that each tensor gets its type
    return made


def errors_of(
    type_: str, quantizer: Quantizer, tensors: list[str], scratch: Path
) -> dict[str, float]:
    """A type's error on each of the tensors that can hold it, by name.

    ``quantizer``: of the unquantized file, for its matrix. A file of the type is made in the
    folder ``scratch``, which is removed.
    """
    known = {tensor.name: tensor for tensor in quantizer.header.tensors}
    able = [name for name in tensors if can_hold(type_, known[name], quantizer.means)]
    if not able:
        return {}
    with scratch_folder(scratch) as folder:
        file = folder / f"{type_}.gguf"
        only(quantizer, dict.fromkeys(able, type_)).write(file)
        before, after, means = stored(quantizer.source), stored(file), quantizer.means
        return {name: error(before[name], after[name], means.get(name)) for name in able}
