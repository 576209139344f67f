"""Quantizing: every type that the config allows can be made; what fails leaves nothing."""

import re
from pathlib import Path

import numpy as np
import pytest

from minillm_lab.experiment.sources import QUANTIZATION_TYPES
from minillm_lab.jobs.errors import LabError
from minillm_lab.models import imatrix
from minillm_lab.models.facts import facts_of
from minillm_lab.models.imatrix import collect, write_imatrix
from minillm_lab.models.quantize import quantize
from minillm_lab.runtimes import Options
from minillm_lab.runtimes.llama_cpp import LlamaCpp


@pytest.fixture(scope="module")
def matrix(tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("matrix") / "imatrix.gguf"
    text = (Path(imatrix.__file__).parent / "calibration.txt").read_text()
    write_imatrix(collect(tiny_gguf, text, "a text", 2), path)
    return path


@pytest.mark.parametrize("type_", QUANTIZATION_TYPES)
def test_every_type_of_the_config_is_made_and_computes(
    type_: str, tiny_gguf: Path, matrix: Path, tmp_path: Path
) -> None:
    quantize(tiny_gguf, type_, tmp_path / "out.gguf", matrix)
    facts = facts_of(tmp_path / "out.gguf")
    plain = re.sub("_(XS|XXS|[SML])$", "", type_)
    assert facts["type"] == type_ and any(t.startswith(plain) for t in facts["tensor_types"])
    runtime = LlamaCpp()
    runtime.load(tmp_path / "out.gguf", Options(threads=1, context=64))
    runtime.prefill([1, 2, 3])
    assert np.isfinite(runtime.logits()).all()
    runtime.unload()


def test_a_broken_source_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + b"\xff" * 100)
    with pytest.raises(LabError, match=r"broken\.gguf.*cannot make Q4_K_M") as error:
        quantize(tmp_path / "broken.gguf", "Q4_K_M", tmp_path / "out.gguf")
    assert "\n" not in str(error.value)
    assert [f.name for f in tmp_path.iterdir()] == ["broken.gguf"]
