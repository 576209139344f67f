"""An answer that means nothing: the result says so, and nothing is ranked on it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from builders import around, compared, made_up
from conftest import ROOT
from minillm_lab.benchmark.collect import collect
from minillm_lab.benchmark.round import flaw_of
from minillm_lab.models.facts import facts_of
from minillm_lab.records import Round, read_record, write_record
from minillm_lab.report.learnings import learnings
from minillm_lab.report.tables import markdown
from minillm_lab.result import ModelFacts
from tiny_model import PROMPT, write_tiny_gguf

SETTINGS = {"runtime": "llama.cpp", "device": "cpu", "threads": 1, "context": 64, "generate": 8}
SETTINGS |= {"repetitions": 1, "warmups": 0, "depths": []}
FLAWS = {
    "the last norm is not a number": (
        float("nan"),
        "the model computes values that are not numbers",
    ),
    "all logits are one": (0.0, "it is one token, repeated"),
    "a sound model": (None, None),
}


def no_constant(name: str) -> None:
    raise AssertionError(f"{name} in JSON")


@pytest.mark.parametrize("output, flaw", FLAWS.values(), ids=FLAWS.keys())
def test_the_result_of_a_real_round_says_what_is_wrong(
    output: float | None, flaw: str | None, tmp_path: Path
) -> None:
    weights = tmp_path / "tiny.F16.gguf"
    write_tiny_gguf(weights, output=output)
    (tmp_path / "prompt.json").write_text(json.dumps(PROMPT))
    subprocess.run(
        [sys.executable, "-m", "minillm_lab.benchmark.round", "--variant", "v", "--round", "1",
         "--weights", weights, "--prompt", tmp_path / "prompt.json",
         "--settings", json.dumps(SETTINGS), "--output", tmp_path / "round.json"],
        env=os.environ | {"PYTHONPATH": str(ROOT / "workflow")}, check=True,
    )  # fmt: skip
    facts = facts_of(weights)
    type_ = facts.pop("type")
    model = ModelFacts(
        name="m", source={"path": str(weights)}, revision=None, quantization=type_, **facts
    )
    write_record(tmp_path / "v.json", collect([read_record(tmp_path / "round.json", Round)], model))
    for name in ("round.json", "v.json"):
        found = json.loads((tmp_path / name).read_text(), parse_constant=no_constant)
        assert found["output"]["flaw"] == flaw
    said = [w for w in found["warnings"] if "no figure of this variant is ranked" in w]
    assert said == (
        [f"the answer means nothing: {flaw}; no figure of this variant is ranked"] if flaw else []
    )


def test_an_empty_answer_is_a_flaw() -> None:
    assert flaw_of([1, 2], " \n", finite=True) == "it is empty"
    assert flaw_of([1, 2], "An answer.", finite=True) is None


def test_what_means_nothing_is_neither_best_nor_learned_from() -> None:
    broken = made_up("broken", decode=around(90), quantization="Q8_0")
    broken.output.flaw = "it is empty"
    found = compared(
        made_up("sound", decode=around(10), size=2 * 10**8, quantization="F16"),
        broken,
        made_up("good", decode=around(20), size=3 * 10**8, quantization="Q4_K_M"),
    )
    assert all("broken" not in names for names in found.best.values())
    assert found.best["decode_tokens_per_second"] == ["good"]
    assert not any("broken" in sentence for sentence in learnings(found))
    rows = [line for line in markdown(found).splitlines() if line.startswith("|")]
    at = rows[0].split("|").index(next(c for c in rows[0].split("|") if "broken" in c))
    assert not any("**" in row.split("|")[at] for row in rows)
