"""Importance matrices through the real workflow: own, another's, of a text, none; and staleness."""

import copy
import os
from pathlib import Path

import pytest
from test_staleness import changed

from conftest import Lab, tiny_config
from minillm_lab.models import imatrix
from minillm_lab.models.imatrix import collect, write_imatrix

OWN = (Path(imatrix.__file__).parent / "calibration.txt").read_text()
MEASURED = {"round": 1, "trial": 1, "facts": 1, "collect": 1, "compare": 1, "tables": 1}
MEASURED |= {"charts": 1, "pages": 1, "readme": 1, "provisional": 1}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, tiny_gguf: Path) -> Lab:
    """A finished experiment: one type with each kind of matrix, and without."""
    private = tmp_path_factory.mktemp("jane") / "a folder"
    private.mkdir()
    write_imatrix(collect(tiny_gguf, OWN[4000:9000], "their text"), private / "theirs.gguf")
    (private / "mine.txt").write_text(OWN[-9000:])
    config = tiny_config(tiny_gguf, rounds=1, trials=1)
    q3 = {"runtime": "llama.cpp", "quantization": "Q3_K_M"}
    config["variants"] = {
        "f16": config["variants"]["f16"],
        "own": q3,
        "none": q3 | {"imatrix": "none"},
        "theirs": q3 | {"imatrix": str(private / "theirs.gguf")},
        "mine": q3 | {"imatrix": str(private / "mine.txt")},
    }
    lab = Lab(tmp_path_factory.mktemp("lab") / "lab", config)
    lab.run()
    return lab


def test_each_file_says_which_matrix_it_was_made_with(done: Lab) -> None:
    models = {name: done.json(f"results/{name}.json")["model"] for name in done.config["variants"]}
    assert {name: model["imatrix"] and model["imatrix"]["dataset"] for name, model in
            models.items()} == {
        "f16": None, "own": "calibration.txt", "none": None, "theirs": "their text",
        "mine": "mine.txt",
    }  # fmt: skip
    assert models["own"]["imatrix"]["chunks_count"] == 16
    assert len({model["files"][0]["sha256"] for model in models.values()}) == 5
    assert {model["quantization"] for model in models.values()} == {"F16", "Q3_K_M"}


def test_the_table_and_the_card_say_it_too_and_no_folder(done: Lab) -> None:
    page, card = done.path("RESULTS.md").read_text(), done.program("export", "--format=model-card")
    assert page.count("Q3_K_M, imatrix") >= 3
    for text in (page, card):
        assert "Importance matrix, `theirs`: theirs.gguf of their text" in text
        assert "a folder" not in text and "jane" not in text
    assert "Q3_K_M+imatrix.gguf" in card


def test_nothing_is_made_again_for_nothing(done: Lab) -> None:
    assert done.planned() == {}


def test_a_matrix_that_was_replaced_makes_its_own_file_again(done: Lab, tiny_gguf: Path) -> None:
    path = Path(done.config["variants"]["theirs"]["imatrix"])
    before, about = path.read_bytes(), path.stat()
    write_imatrix(collect(tiny_gguf, OWN[9000:14000], "another text"), path)
    os.utime(path, ns=(about.st_atime_ns - 10**12, about.st_mtime_ns - 10**12))  # an older file
    try:
        assert done.planned() == {"quantize": 1} | MEASURED
    finally:
        path.write_bytes(before)
        os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert done.planned() == {}


def test_a_text_that_changed_makes_its_matrix_again(done: Lab) -> None:
    path = Path(done.config["variants"]["mine"]["imatrix"])
    before, about = path.read_text(), path.stat()
    path.write_text(OWN[-12000:])
    os.utime(path, ns=(about.st_atime_ns - 10**12, about.st_mtime_ns - 10**12))  # an older file
    try:
        assert done.planned() == {"imatrix": 1, "quantize": 1} | MEASURED
    finally:
        path.write_text(before)
        os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))


def test_another_type_takes_the_matrix_that_is_there(done: Lab) -> None:
    variants = copy.deepcopy(done.config["variants"])
    variants["iq2"] = {"runtime": "llama.cpp", "quantization": "IQ2_M"}
    with changed(done, variants=variants):
        assert done.planned() == {"quantize": 1} | MEASURED


def test_another_cache_makes_no_file_again(done: Lab) -> None:
    variants = copy.deepcopy(done.config["variants"])
    variants["own"]["kv_cache"] = "q8_0"
    with changed(done, variants=variants):
        assert done.planned() == {k: n for k, n in MEASURED.items() if k != "facts"}


@pytest.mark.parametrize(
    ("matrix", "said"),
    [
        ("gone.gguf", "error: imatrix: gone.gguf: there is no such file"),
        ("gone.txt", "error: imatrix: gone.txt: there is no such file"),
        ("old.dat", "older form"),
        ("short.txt", "fewer than 512 tokens"),
        ("model.gguf", "no importance matrix"),
        ("bytes.txt", "is not UTF-8 text"),
    ],
)
def test_what_is_no_matrix_is_one_line(matrix: str, said: str, done: Lab, tiny_gguf: Path) -> None:
    done.path("old.dat").write_bytes(b"old")
    done.path("short.txt").write_text("Too short.")
    done.path("bytes.txt").write_bytes(bytes(range(128, 256)) * 100)
    if not done.path("model.gguf").exists():
        done.path("model.gguf").symlink_to(tiny_gguf)
    variants = copy.deepcopy(done.config["variants"])
    variants["bad"] = variants["own"] | {"imatrix": matrix}
    with changed(done, variants=variants):
        refused = done.snakemake("--cores", "1", "results/bad.json", ok=False)
    printed = refused.stdout + refused.stderr
    assert said in printed and "Traceback" not in printed
    assert not [*done.path("models/tiny").glob("*.part")]
