"""From a repository's name to a table: ``minillm-lab new`` and the workflow, against a hub."""

import subprocess
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import pytest

from conftest import ROOT, Lab
from hub_server import Hub
from minillm_lab.models.quantize import quantize
from tiny_model import split_gguf

PARTS = [f"Q4_K_M/tiny-Q4_K_M-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
RUN = ("--cores", "1", "--configfile", "experiments/tiny-gguf.yaml")
SOURCES = ("acme/tiny-GGUF", "other/tiny-GGUF")


@pytest.fixture(scope="module")
def hub(tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    folder = tmp_path_factory.mktemp("publisher")
    for type_ in ("Q8_0", "Q5_K_M", "Q4_K_M"):
        quantize(tiny_gguf, type_, folder / f"{type_}.gguf")
    parts = split_gguf(folder / "Q4_K_M.gguf", folder / "parts", "tiny-Q4_K_M")
    with Hub() as hub:
        hub.publish(
            "acme/tiny-GGUF",
            {
                "tiny-F16.gguf": tiny_gguf.read_bytes(),
                "tiny-Q8_0.gguf": (folder / "Q8_0.gguf").read_bytes(),
                "tiny-UD-Q4_K_XL.gguf": (folder / "Q5_K_M.gguf").read_bytes(),
                **{name: part.read_bytes() for name, part in zip(PARTS, parts, strict=True)},
            },
        )
        hub.publish("other/tiny-GGUF", {"tiny-Q4_K_M.gguf": (folder / "Q4_K_M.gguf").read_bytes()})
        yield hub


@pytest.fixture(scope="module")
def lab(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """The experiment that ``new`` wrote, shortened by hand, and run."""
    folder = tmp_path_factory.mktemp("new") / "lab"
    lab = Lab(folder, {}, {"HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "home")})
    lab.program("new", *SOURCES)
    lab.shorten("tiny-gguf", "  questions: null\n  chunks: 2")
    lab.snakemake(*RUN)
    return lab


def test_the_table_names_each_file_right(lab: Lab) -> None:
    lines = lab.path("results/tiny-gguf/comparison.md").read_text().splitlines()
    first = takewhile(lambda line: line.startswith("|"), lines)  # then those of other states
    rows = [[c.strip() for c in line.split("|")[1:-1]] for line in first]
    cells = {label: row for label, *row in rows}
    assert dict(zip(cells[""], cells["Weights"], strict=True)) == {
        "f16 (baseline)": "F16",
        "q8_0": "Q8_0",
        "ud-q4_k_xl": "UD-Q4_K_XL (Q5_K_M)",
        "acme-q4_k_m": "acme-Q4_K_M (Q4_K_M)",
        "other-q4_k_m": "other-Q4_K_M (Q4_K_M)",
    }
    page = lab.path("experiments/tiny-gguf.md").read_text()
    assert "ud-q4_k_xl" in page and "unpacked" not in page


def test_results_hold_the_published_files(hub: Hub, lab: Lab) -> None:
    names = {
        "q8_0": ("acme/tiny-GGUF", ["tiny-Q8_0.gguf"]),
        "acme-q4_k_m": ("acme/tiny-GGUF", PARTS),
        "other-q4_k_m": ("other/tiny-GGUF", ["tiny-Q4_K_M.gguf"]),
    }
    for variant, (repository, published) in names.items():
        model = lab.json(f"results/tiny-gguf/{variant}.json")["model"]
        assert [file["sha256"] for file in model["files"]] == [
            hub.sha256(repository, name) for name in published
        ]
    assert {path.name for path in lab.path("models/tiny").iterdir()} == {"source"}


def test_the_reference_is_its_own_and_loses_nothing(lab: Lab) -> None:
    lost = {
        name: lab.json(f"results/tiny-gguf/{name}.json")["quality"]["kld_mean"]["value"]
        for name in ("f16", "q8_0", "ud-q4_k_xl", "acme-q4_k_m", "other-q4_k_m")
    }
    assert lost["f16"] < 1e-6 < lost["q8_0"] < lost["ud-q4_k_xl"] < lost["acme-q4_k_m"]
    assert lost["acme-q4_k_m"] == lost["other-q4_k_m"]  # the same weights, in parts and whole


def test_both_commands_again_change_nothing(lab: Lab) -> None:
    before = lab.path("experiments/tiny-gguf.yaml").read_text()
    assert "nothing was changed" in lab.program("new", *SOURCES)
    assert lab.path("experiments/tiny-gguf.yaml").read_text() == before
    assert "Nothing to be done" in lab.snakemake(*RUN).stderr


def test_make_takes_the_experiment_by_its_name() -> None:
    def dry(*arguments: str) -> str:
        command = ["make", "--dry-run", "--old-file", ".venv/installed", *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout

    assert "snakemake --cores 1 --configfile experiments/tiny-gguf.yaml" in dry(
        "run", "EXPERIMENT=tiny-gguf"
    )
    assert "--report report.html --configfile experiments/tiny-gguf.yaml" in dry(
        "report", "EXPERIMENT=tiny-gguf"
    )
    assert "--configfile" not in dry("run")
