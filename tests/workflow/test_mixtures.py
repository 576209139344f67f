"""Mixtures through the real workflow: as asked for, of the size that was said, and staleness."""

import copy
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from test_staleness import changed

from conftest import Lab, tiny_config
from minillm_lab.header import read_gguf

MIXTURE = {"attn_v": "Q8_0", "blk.(0|1).*down": "Q5_K", "token_embd": "Q8_0"}
MEASURED = {"round": 1, "trial": 1, "facts": 1, "collect": 1, "compare": 1, "tables": 1}
MEASURED |= {"charts": 1, "pages": 1, "readme": 1, "provisional": 1}
ASKED = {"runtime": "llama.cpp", "quantization": "Q3_K_M", "tensors": MIXTURE}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, tiny_gguf: Path) -> Lab:
    """A finished experiment: a stock type, a mixture on it with a matrix, and without."""
    config = tiny_config(tiny_gguf, rounds=1, trials=1)
    config["variants"] = {
        "f16": config["variants"]["f16"],
        "stock": {"runtime": "llama.cpp", "quantization": "Q3_K_M"},
        "mixture": ASKED,
        "without": ASKED | {"imatrix": "none"},
    }
    lab = Lab(tmp_path_factory.mktemp("lab") / "lab", config)
    lab.run()
    return lab


@contextmanager
def asking(lab: Lab, **settings: Any) -> Iterator[None]:
    """The variant ``mixture`` with other settings."""
    variants = copy.deepcopy(lab.config["variants"])
    variants["mixture"] |= settings
    with changed(lab, variants=variants):
        yield


def test_tensors_are_stored_as_asked_and_the_result_says_so(done: Lab) -> None:
    for name, matrix in (("mixture", "calibration.txt"), ("without", None)):
        model = done.json(f"results/{name}.json")["model"]
        types = {t.name: t.type for t in read_gguf(done.path(model["files"][0]["path"])).tensors}
        assert types["token_embd.weight"] == types["blk.1.attn_v.weight"] == "Q8_0"
        assert types["blk.0.ffn_down.weight"] == types["blk.1.ffn_down.weight"] == "Q5_K"
        assert types["blk.1.ffn_up.weight"] == "Q3_K"
        assert model["tensors"] == MIXTURE and model["quantization"] == "Q3_K_M"
        assert (model["imatrix"] or {}).get("dataset") == matrix
    assert done.json("results/stock.json")["model"]["tensors"] == {}
    assert len({*done.path("models/tiny").glob("Q3_K_M*.gguf")}) == 3


def test_each_file_has_the_bytes_that_its_log_said(done: Lab) -> None:
    logs = [*done.path("logs/quantize").glob("*.log")]
    assert len(logs) == 3
    for log in logs:
        said = re.search(r"quantizing to Q3_K_M: (\S+), ([\d,]+) bytes", log.read_text())
        assert said and done.path(said[1]).stat().st_size == int(said[2].replace(",", ""))


def test_the_table_and_the_card_tell_a_mixture_from_the_stock_type(done: Lab) -> None:
    page, card = done.path("RESULTS.md").read_text(), done.program("export", "--format=model-card")
    (weights,) = [line for line in page.splitlines() if line.startswith("| Weights")]
    assert [cell.strip() for cell in weights.split("|")[2:-1]] == [
        "F16", "Q3_K_M, imatrix, mixture", "Q3_K_M, imatrix", "Q3_K_M, mixture"
    ]  # fmt: skip
    for text in (page, card):
        assert "Mixture, `mixture`, `without`: Q3_K_M with `attn_v` Q8_0, " in text
    assert re.search(r"Q3_K_M\+imatrix\+tensors-\w{8}\.gguf", card)


def test_it_is_made_again_when_its_mapping_changes_and_then_alone(done: Lab) -> None:
    assert done.planned() == {}
    with asking(done, tensors=MIXTURE | {"token_embd": "Q6_K"}):
        assert done.planned() == {"quantize": 1} | MEASURED
    with asking(done, threads=2):
        assert {"quantize", "facts"}.isdisjoint(done.planned())
    assert done.planned() == {}


def test_a_pattern_that_matches_nothing_is_one_line_and_nothing_is_made(done: Lab) -> None:
    before = {*done.path("models/tiny").iterdir()}
    with asking(done, tensors={"ffn_dwn": "Q8_0"}):
        refused = done.snakemake("--cores", "1", "results/mixture.json", ok=False)
    said = [line for line in refused.stderr.splitlines() if line.startswith("error: ")]
    assert len({*said}) == 1 and "'ffn_dwn' matches no tensor of the model" in said[0]
    assert "Traceback" not in refused.stderr and {*done.path("models/tiny").iterdir()} == before
