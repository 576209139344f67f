"""Safetensors made from a GGUF hold its weights in its own type."""

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from minillm_lab.models.quantize import quantize
from minillm_lab.models.safetensors import write_safetensors


@pytest.mark.parametrize(
    ("type_", "dtype"), [("F16", torch.float16), ("BF16", torch.bfloat16), ("F32", torch.float32)]
)
def test_the_weights_keep_their_type_and_range(
    type_: str, dtype: torch.dtype, tiny_gguf: Path, tmp_path: Path
) -> None:
    file = tmp_path / "tiny.gguf"
    quantize(tiny_gguf, type_, file)
    if type_ != "F16":  # 2^17 is beyond float16
        with_a_large_weight(file, 0x48000000)
    write_safetensors(file, tmp_path / "out")
    weights = load_file(tmp_path / "out" / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {dtype}
    largest = max(float(tensor.abs().max()) for tensor in weights.values())
    assert largest < 1000 if type_ == "F16" else largest == 2.0**17


def test_the_header_is_read_once(
    tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    reader, init = gguf.GGUFReader, gguf.GGUFReader.__init__

    def counted(self: gguf.GGUFReader, path: Path) -> None:
        read.append(Path(path))
        init(self, path)

    monkeypatch.setattr(gguf.GGUFReader, "__init__", counted)
    write_safetensors(tiny_gguf, tmp_path / "out")
    assert read == [tiny_gguf]
    assert gguf.GGUFReader is reader


def with_a_large_weight(file: Path, bits: int) -> None:
    """Give the first weight of the embeddings the float32 of these bits."""
    reader = gguf.GGUFReader(file, "r+")
    tensor = next(t for t in reader.tensors if t.name == "token_embd.weight")
    raw = np.array([bits], "<u4").view(np.uint8)
    raw = raw if tensor.tensor_type == gguf.GGMLQuantizationType.F32 else raw[2:]
    tensor.data.reshape(-1).view(np.uint8)[: len(raw)] = raw
    reader.data.flush()
