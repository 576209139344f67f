"""Code that came with a model never runs: neither Python beside the weights nor a pickle."""

import json
import pickle
import shutil
from pathlib import Path

import pytest

from minillm_lab.experiment.sources import SAFETENSORS_FILES, Model
from minillm_lab.jobs.errors import LabError
from minillm_lab.models.fetch import fetch_safetensors
from minillm_lab.models.prompt import from_folder
from minillm_lab.models.safetensors import write_safetensors
from minillm_lab.quality.tokenizer import open_tokenizer
from minillm_lab.runtimes import Options
from minillm_lab.runtimes.transformers import Transformers
from tiny_model import plant_code


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    return tmp_path / "canary"


@pytest.fixture
def source(tiny_safetensors: Path, tmp_path: Path, canary: Path) -> Path:
    folder = shutil.copytree(tiny_safetensors, tmp_path / "source")
    plant_code(folder, canary)
    return folder


@pytest.fixture
def fetched(source: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "models" / "safetensors"
    fetch_safetensors(Model(path=str(source)), folder, SAFETENSORS_FILES)
    return folder


def read_by_all(folder: Path) -> None:
    """Every way in which the lab reads a folder of a model."""
    assert from_folder(folder, "Why?")["token_ids"]
    assert open_tokenizer(folder)[0]("Why?")
    runtime, options = Transformers(), Options(threads=1, context=64, dtype="float32")
    runtime.prepare(folder, options)
    runtime.load(folder, options)
    assert runtime.tokenize("Why?", False)
    runtime.unload()


def test_the_canary_sings_where_code_is_run(source: Path, canary: Path) -> None:
    with (source / "pytorch_model.bin").open("rb") as file:
        pickle.load(file)
    exec((source / "evil.py").read_text())
    assert canary.read_text() == "pickle module "


def test_neither_code_nor_pickles_are_fetched(fetched: Path) -> None:
    assert not [f.name for f in fetched.iterdir() if f.suffix in (".py", ".bin", ".pt")]


def test_code_beside_the_weights_never_runs(source: Path, fetched: Path, canary: Path) -> None:
    read_by_all(fetched)
    read_by_all(source)  # as it was published, with the code in reach
    assert not canary.exists()


def test_a_model_that_is_nothing_but_code_is_refused(source: Path, canary: Path) -> None:
    settings = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(settings | {"model_type": "evil"}))
    with pytest.raises(LabError, match=r"source: Transformers cannot load it"):
        Transformers().prepare(source, Options(threads=1))
    assert not canary.exists()


def test_pickles_are_no_weights_where_safetensors_are_gone(source: Path, canary: Path) -> None:
    for file in source.glob("*.safetensors"):
        file.unlink()
    runtime, options = Transformers(), Options(threads=1)
    runtime.prepare(source, options)
    with pytest.raises(LabError, match=r"source: Transformers cannot load it"):
        runtime.load(source, options)
    assert not canary.exists()


def test_an_export_runs_no_code_beside_the_gguf(
    source: Path, tiny_gguf: Path, tmp_path: Path, canary: Path
) -> None:
    shutil.copy(tiny_gguf, source / "tiny.gguf")
    write_safetensors(source / "tiny.gguf", tmp_path / "out")
    assert not canary.exists()


def test_no_module_is_imported_because_a_config_names_it(
    source: Path, canary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(source)
    settings = json.loads((source / "config.json").read_text())
    settings["quantization_config"] = {"quant_method": "evil"}
    (source / "config.json").write_text(json.dumps(settings))
    runtime, options = Transformers(), Options(threads=1, context=64, dtype="float32")
    runtime.prepare(source, options)
    assert runtime.library is None and not canary.exists()
