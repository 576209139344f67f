"""Facts of a file are read from the file, not from its name."""

from pathlib import Path

import pytest

from minillm_lab.jobs.errors import LabError
from minillm_lab.jobs.files import sha256_of
from minillm_lab.models.facts import facts_of
from minillm_lab.models.quantize import quantize


def test_gguf_and_safetensors_of_one_model_agree(tiny_gguf: Path, tiny_safetensors: Path) -> None:
    gguf, safetensors = facts_of(tiny_gguf), facts_of(tiny_safetensors)
    assert gguf["parameters"] == safetensors["parameters"]
    assert gguf["bits_per_weight"] == pytest.approx(16, rel=0.02)
    assert safetensors["bits_per_weight"] == 16
    assert gguf["context"] == safetensors["context"] == 512
    assert gguf["files"][0]["bytes"] == tiny_gguf.stat().st_size
    assert gguf["files"][0]["sha256"] == sha256_of(tiny_gguf)


def test_tensor_types_say_what_a_quantized_file_holds(tiny_gguf: Path, tmp_path: Path) -> None:
    quantize(tiny_gguf, "Q4_K_M", tmp_path / "q.gguf")
    facts = facts_of(tmp_path / "q.gguf")
    assert next(iter(facts["tensor_types"])) == "Q4_K"  # rows of 256: no fallback here
    assert sum(facts["tensor_types"].values()) == pytest.approx(1)
    assert 4.5 < facts["bits_per_weight"] < 6.5


@pytest.mark.parametrize("content", [b"", b"GGUF", b"not a model" * 100])
def test_what_is_no_model_is_refused_by_name(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "broken.gguf"
    file.write_bytes(content)
    with pytest.raises(LabError, match=r"broken\.gguf"):
        facts_of(file)
