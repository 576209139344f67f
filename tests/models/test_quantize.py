"""Quantizing: every type that the config allows can be made; what fails leaves nothing."""

import re
from pathlib import Path

import pytest

from minillm_lab.experiment.sources import QUANTIZATION_TYPES
from minillm_lab.jobs.errors import LabError
from minillm_lab.models.facts import facts_of
from minillm_lab.models.quantize import quantize


@pytest.mark.parametrize("type_", QUANTIZATION_TYPES)
def test_every_type_of_the_config_is_made(type_: str, tiny_gguf: Path, tmp_path: Path) -> None:
    quantize(tiny_gguf, type_, tmp_path / "out.gguf")
    assert re.sub("_[SML]$", "", type_) in facts_of(tmp_path / "out.gguf")["tensor_types"]


def test_a_broken_source_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + b"\xff" * 100)
    with pytest.raises(LabError, match=r"broken\.gguf.*cannot make Q4_K_M") as error:
        quantize(tmp_path / "broken.gguf", "Q4_K_M", tmp_path / "out.gguf")
    assert "\n" not in str(error.value)
    assert [f.name for f in tmp_path.iterdir()] == ["broken.gguf"]
