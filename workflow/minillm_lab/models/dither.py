"""Dither: rounding noise that is put back into weights unpacked from a quantized file.

Unpacked weights lie on the grid of the type in which they were shipped. A type whose own grid
coincides with it loses too little, another too much. Moving each weight by a random part of a step
takes them off the grid (docs/quality.md).
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from minillm_lab.header import UNQUANTIZED_TENSORS, read_header
from minillm_lab.jobs.errors import LabError

SEED = 20260101
BLOCKS = 1 << 13  # blocks moved at once
# By type: the bytes of a block that hold the lowest bits of its values (from, to), and the byte in
# which each value is 1.
LOWEST_BITS = {
    "Q4_0": (2, 18, 0x11),
    "Q4_1": (4, 20, 0x11),
    "Q5_0": (6, 22, 0x11),
    "Q5_1": (8, 24, 0x11),
    "Q8_0": (2, 34, 0x01),
    "Q2_K": (16, 80, 0x55),
    "Q3_K": (32, 96, 0x55),
    "Q4_K": (16, 144, 0x11),
    "Q5_K": (48, 176, 0x11),
    "Q6_K": (0, 128, 0x11),
}


def check_steps(source: Path) -> None:
    """Raise LabError if a GGUF's weights are not quantized, or are in a type without even steps."""
    if source.is_dir():
        raise LabError(f"{source}: weights of a GGUF in parts cannot be moved; leave 'dither' out")
    types = {tensor.type for tensor in read_header(source).tensors} - {*UNQUANTIZED_TENSORS}
    if not types:
        raise LabError(f"{source}: its weights are not quantized; leave 'dither' out")
    if unknown := sorted(types - {*LOWEST_BITS}):
        raise LabError(f"{source}: the steps of {unknown[0]} are not even; leave 'dither' out")


def dither(source: Path, unpacked: Path, share: float) -> None:
    """Move each weight of ``unpacked`` by up to ± share/2 of its step in ``source``, in place.

    ``unpacked`` is the F16 that llama.cpp makes of ``source``. The same file and share give the
    same bytes, since a tensor's random numbers follow from its name. It takes memory for BLOCKS
    blocks.
    """
    shipped, target = np.memmap(source, np.uint8, "r"), np.memmap(unpacked, np.uint8, "r+")
    before, after = read_header(source), read_header(unpacked)
    places = {tensor.name: tensor for tensor in after.tensors if tensor.type == "F16"}
    for tensor in before.tensors:
        if tensor.type not in LOWEST_BITS or tensor.name not in places:
            continue
        begin, place = before.data + tensor.offset, places[tensor.name]
        blocks = shipped[begin : begin + tensor.bytes].reshape(-1, block_bytes(tensor.type))
        begin = after.data + place.offset
        weights = target[begin : begin + place.bytes].view(np.float16).reshape(len(blocks), -1)
        random = np.random.default_rng([SEED, *tensor.name.encode()])
        for start in range(0, len(blocks), BLOCKS):
            some = np.array(blocks[start : start + BLOCKS])
            noise = random.random(weights[start : start + BLOCKS].shape, np.float32)
            moved = (noise - np.float32(0.5)) * np.float32(share) * steps(some, tensor.type)
            weights[start : start + BLOCKS] = dequantized(some, tensor.type) + moved
    target.flush()


def steps(blocks: NDArray[np.uint8], type_: str) -> NDArray[np.float32]:
    """The step from each weight to the next value of its block, in the shape of ``dequantized``."""
    first, end, one = LOWEST_BITS[type_]
    lowest = blocks.copy()
    lowest[:, first:end] = 0
    zero = dequantized(lowest, type_)
    lowest[:, first:end] = one
    return dequantized(lowest, type_) - zero


def dequantized(blocks: NDArray[np.uint8], type_: str) -> NDArray[np.float32]:
    """The weights of blocks of bytes, shape (blocks, weights in each)."""
    from minillm_lab.ggml import GGMLQuantizationType, dequantize

    row = blocks.reshape(1, -1)  # the package goes through rows one by one
    weights: NDArray[np.float32] = dequantize(row, GGMLQuantizationType[type_])
    return weights.reshape(len(blocks), -1)


def block_bytes(type_: str) -> int:
    from minillm_lab.ggml import GGML_QUANT_SIZES, GGMLQuantizationType

    size: int = GGML_QUANT_SIZES[GGMLQuantizationType[type_]][1]
    return size
