"""A failure in quality costs no speeds: results say why it is missing, and it is tried again."""

from pathlib import Path

import pytest

from conftest import Lab, tiny_config
from quality_lab import QUESTIONS, TEXT

QUALITY = {"text": "text.txt", "questions": "questions.yaml", "context": 64}
AGAIN = {"reference", "score", "collect", "compare", "charts", "tables", "pages", "readme"}
SMALL = """
import sys
if "minillm_lab.quality.reference" in sys.orig_argv:
    import types, psutil
    psutil.virtual_memory = lambda: types.SimpleNamespace(total=1000)
"""


@pytest.fixture(scope="module")
def lab(tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """Rounds and trials are those of the first test that runs: each ends where it began."""
    config = tiny_config(tiny_gguf, rounds=1, trials=1, quality=QUALITY)
    lab = Lab(tmp_path_factory.mktemp("failure") / "lab", config)
    lab.path("text.txt").write_text(TEXT)
    lab.path("questions.yaml").write_text(QUESTIONS)
    return lab


def run_without_quality(lab: Lab, reason: str) -> list[str]:
    """Run; every result has its speeds and says why its quality is missing. Its warnings."""
    said = lab.run().stderr
    assert f"note: quality is not measured: {reason}" in said
    for name in lab.config["variants"]:
        result = lab.json(f"results/{name}.json")
        assert result["quality"] is None and "quality" not in result["protocol"]
        assert result["metrics"]["decode_tokens_per_second"]["value"] > 0
        assert any(reason in warning for warning in result["warnings"])
    assert reason in lab.path("RESULTS.md").read_text()
    assert lab.planned() == {}
    return list(result["warnings"])


def test_a_context_longer_than_the_models(lab: Lab) -> None:
    lab.config["quality"] = QUALITY | {"context": 1024}
    lab.write_config()
    run_without_quality(lab, "quality.context: 1024 tokens are more than the 512 that the model")
    lab.config["quality"] = QUALITY
    lab.write_config()
    assert lab.planned().keys() == AGAIN | {"text"}  # no round and no trial


def test_a_reference_that_does_not_fit_into_memory(lab: Lab) -> None:
    (lab.folder / "shim").mkdir()
    lab.path("shim/sitecustomize.py").write_text(SMALL)
    lab.environment = {"PYTHONPATH": str(lab.path("shim"))}
    reason = "models/tiny/safetensors: does not fit into memory"
    warnings = run_without_quality(lab, reason)
    (warning,) = (w for w in warnings if reason in w)
    _, _, said = warning.partition("; to try again, add ")
    assert said == "--forcerun results/quality/reference.tiny.npz to the command"
    again = "--cores 1 --forcerun results/quality/reference.tiny.npz"

    lab.environment = {}
    assert lab.planned(*again.split()).keys() == AGAIN
    lab.snakemake(*again.split())
    assert lab.json("results/q4_k_m.json")["quality"]["kld_mean"]["value"] > 0
