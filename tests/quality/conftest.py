from pathlib import Path

import pytest
from quality_lab import FLOAT32, make_reference, prepared

from minillm_lab.quality.text import EvaluationText


@pytest.fixture(scope="session")
def text(tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> EvaluationText:
    return prepared(tiny_gguf, tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="session")
def reference(
    text: EvaluationText, tiny_safetensors: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Float32 in Transformers, compact: 64 of 300 log-probabilities and a sample of the rest."""
    path = tmp_path_factory.mktemp("reference") / "reference.npz"
    make_reference("tiny", tiny_safetensors, text, FLOAT32, path, top=64, tail=64)
    return path
