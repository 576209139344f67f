"""From a name of Ollama's to a table: ``minillm-lab new`` and the workflow, on a store here."""

from pathlib import Path

import pytest
import yaml

from conftest import Lab, tiny_config
from minillm_lab.models.quantize import quantize
from ollama_store import Store

RUN = ("--cores", "1", "--configfile", "experiments/tiny.yaml")


@pytest.fixture(scope="module")
def lab(tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    folder = tmp_path_factory.mktemp("ollama")
    store = Store(folder / "models")
    for type_ in ("Q8_0", "Q4_K_M"):
        quantize(tiny_gguf, type_, folder / f"{type_}.gguf")
        name = f"registry.ollama.ai/library/tiny/1b-{type_.lower()}"
        layers = [
            ("model", (folder / f"{type_}.gguf").read_bytes()),
            ("template", b"{{ .Prompt }}"),
        ]
        store.add(name, layers)
    lab = Lab(folder / "lab", {}, {"OLLAMA_MODELS": str(store.folder)})
    names = ["ollama:tiny:1b-q8_0", "ollama:tiny:1b-q4_k_m", "--name", "tiny"]
    assert "Download: nothing." in lab.program("new", *names)
    return lab


def test_what_new_wrote_can_be_planned_and_run(lab: Lab) -> None:
    path = lab.path("experiments/tiny.yaml")
    planned = lab.planned("--configfile", str(path))
    assert planned["fetch_gguf"] == 2 and "quantize" not in planned
    short = tiny_config(rounds=1, trials=1, repetitions=1, warmups=0)
    written = yaml.safe_load(path.read_text())
    kept = ("model", "models", "variants", "baseline", "results", "readme")
    quality = {"chunks": 2, "questions": None, "reference": written["quality"]["reference"]}
    path.write_text(
        yaml.safe_dump(short | {key: written[key] for key in kept} | {"quality": quality})
    )
    lab.snakemake(*RUN)
    page = lab.path("experiments/tiny.md").read_text()
    assert "q8_0 (baseline)" in page and "q4_k_m" in page
    for name in ("q8_0", "q4_k_m"):
        model = lab.json(f"results/tiny/{name}.json")["model"]
        (file,) = model["files"]
        assert file["path"] == f"models/tiny/source/sha256-{file['sha256']}.gguf"
        assert model["quantization"] == name.upper() and model["label"] is None
    for shared in (
        "experiments/tiny.md",
        "results/tiny/comparison.md",
        "results/tiny/comparison.csv",
    ):
        assert str(lab.folder.parent) not in lab.path(shared).read_text()
    assert "Nothing to be done" in lab.snakemake(*RUN).stderr
