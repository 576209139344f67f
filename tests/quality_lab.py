"""What the quality tests share: a short text, a few questions, and the steps as one call each."""

from pathlib import Path
from typing import Any

import pytest

from minillm_lab.quality.reference import make_reference
from minillm_lab.quality.score import score
from minillm_lab.quality.text import EvaluationText, Protocol, evaluation_text
from minillm_lab.records import Score

TEXT = "".join(
    f"Line {i}: hello there, in the hotel he tells them {i * i} things; they list him {i % 7}.\n"
    for i in range(16)
)
QUESTIONS = """
questions:
  - {group: one, question: "What is it?", choices: [this, that, them, thing], answer: that}
  - {group: one, question: "Who?", choices: [he, she, they, it], answer: he}
  - {group: two, question: "Two and two?", choices: ["4", "5", "22", "none"], answer: "4"}
"""
SECTIONS = """
sections:
  - {section: first, from: "Line 2:"}
  - {section: second, from: "Line 8:"}
  - {section: first, from: "Line 14:"}
"""
LLAMA = {"runtime": "llama.cpp", "threads": 1, "device": "cpu"}
FLOAT32 = {"runtime": "transformers", "dtype": "float32", "threads": 1, "device": "cpu"}
SHORT = Protocol(name="lab", context=64, score_from=16)


def prepared(tokenizer: Path, folder: Path, protocol: Protocol = SHORT) -> EvaluationText:
    (folder / "text.txt").write_text(TEXT, encoding="utf-8")
    (folder / "questions.yaml").write_text(QUESTIONS, encoding="utf-8")
    (folder / "text.sections.yaml").write_text(SECTIONS, encoding="utf-8")
    text, questions = folder / "text.txt", folder / "questions.yaml"
    return evaluation_text(tokenizer, text, questions, protocol, folder / "text.sections.yaml")


def scored(
    weights: Path,
    text: EvaluationText,
    reference: Path,
    settings: dict[str, Any] = LLAMA,
) -> Score:
    return score("variant", "tiny", weights, text, settings, reference)


def value(found: Score, name: str) -> float:
    figure = found.metrics[name].value
    assert figure is not None
    return figure


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
