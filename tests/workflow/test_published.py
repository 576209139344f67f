"""The workflow with GGUF files as they were published: in parts, under names of their own."""

from pathlib import Path

import pytest

from conftest import Lab, tiny_config
from minillm_lab.models.quantize import quantize
from tiny_model import split_gguf

PARTS = [f"tiny-q4-0000{i}-of-00003.gguf" for i in (1, 2, 3)]


@pytest.fixture(scope="module")
def lab(tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """Three files of a folder, one of them in parts, and one that is made from the first."""
    folder = tmp_path_factory.mktemp("published")
    (folder / "tiny-f16.gguf").write_bytes(tiny_gguf.read_bytes())
    quantize(tiny_gguf, "Q8_0", folder / "mine.gguf")
    quantize(tiny_gguf, "Q4_K_M", folder / "whole.gguf")
    split_gguf(folder / "whole.gguf", folder / "in-parts", "tiny-q4")
    files = {
        "F16": {"file": "tiny-f16.gguf"},
        "UD-Q8_K_XL": {"file": "mine.gguf"},
        "Q4_K_M": {"parts": [{"file": f"in-parts/{name}"} for name in PARTS]},
    }
    config = tiny_config(
        models={"tiny": {"path": str(folder), "files": files}},
        variants={
            "f16": {"runtime": "llama.cpp", "file": "F16"},
            "split": {"runtime": "llama.cpp", "file": "Q4_K_M"},
            "own": {"runtime": "llama.cpp", "file": "UD-Q8_K_XL"},
            "made": {"runtime": "llama.cpp", "quantization": "Q8_0"},
        },
        rounds=1,
        trials=1,
        repetitions=1,
        warmups=0,
        quality={"chunks": 2, "questions": None, "reference": "f16"},
    )
    lab = Lab(tmp_path_factory.mktemp("lab") / "lab", config)
    lab.run()
    return lab


def test_types_come_from_headers_and_labels_stay_names(lab: Lab) -> None:
    models = {n: lab.json(f"results/{n}.json")["model"] for n in lab.config["variants"]}
    named = {name: (model["quantization"], model["label"]) for name, model in models.items()}
    assert named == {
        "f16": ("F16", None),
        "split": ("Q4_K_M", None),
        "own": ("Q8_0", "UD-Q8_K_XL"),
        "made": ("Q8_0", None),
    }
    lines = lab.path("results/comparison.md").read_text().splitlines()
    names, *rows = ([c.strip() for c in line.split("|")[2:-1]] for line in lines if "|" in line)
    (weights,) = (row for row in rows if "UD-Q8_K_XL (Q8_0)" in row)
    assert dict(zip(names, weights, strict=True)) == {
        "f16 (baseline)": "F16", "split": "Q4_K_M", "own": "UD-Q8_K_XL (Q8_0)", "made": "Q8_0"
    }  # fmt: skip


def test_parts_are_one_model(lab: Lab) -> None:
    model = lab.json("results/split.json")["model"]
    folder = "models/tiny/source/in-parts--tiny-q4.split"
    assert [file["path"] for file in model["files"]] == [f"{folder}/{name}" for name in PARTS]
    assert model["format"] == "gguf" and model["parameters"] > 0
    source = Path(lab.config["models"]["tiny"]["path"])
    assert sum(file["bytes"] for file in model["files"]) == sum(
        (source / "in-parts" / name).stat().st_size for name in PARTS
    )


def test_nothing_published_was_made_here_nor_called_unpacked(lab: Lab) -> None:
    made = {file.name for file in lab.path("models/tiny").iterdir()}
    assert made == {"source", "Q8_0.gguf"}
    assert not any("unpacked" in w for w in lab.json("results/split.json")["warnings"])
    assert "Nothing to be done" in lab.run().stderr


def test_the_same_weights_made_or_published_lose_the_same(lab: Lab) -> None:
    own, made = (lab.json(f"results/{n}.json")["quality"]["kld_mean"] for n in ("own", "made"))
    assert own["value"] == made["value"] > 0


def test_a_replaced_part_makes_its_own_variant_stale_alone(lab: Lab) -> None:
    part = Path(lab.config["models"]["tiny"]["path"]) / "in-parts" / PARTS[2]
    part.write_bytes(part.read_bytes()[:-1] + b"x")
    planned = lab.planned()
    assert (planned["fetch_folder"], planned["round"], planned["collect"]) == (1, 1, 1)
