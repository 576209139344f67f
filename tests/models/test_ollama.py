"""Names of Ollama's store: which file each stands for, and what is refused in one line."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from minillm_lab.experiment.sources import Model
from minillm_lab.jobs.errors import LabError
from minillm_lab.models.discover import discover
from minillm_lab.models.fetch import fetch_gguf
from minillm_lab.models.quantize import quantize
from ollama_store import Store
from tiny_model import write_tiny_gguf

PLAIN = "template", b"{{ .Prompt }}"


@pytest.fixture(scope="module")
def q8_0(tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("q8") / "q8.gguf"
    quantize(tiny_gguf, "Q8_0", path)
    return path.read_bytes()


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "models"))
    return Store(tmp_path / "models")


def refused(*sources: str) -> str:
    with pytest.raises(LabError) as caught:
        discover([*sources], [])
    said = str(caught.value)
    assert "\n" not in said
    return said


@pytest.mark.parametrize(
    ("kept", "asked"),
    [
        ("registry.ollama.ai/library/tiny/latest", "tiny"),
        ("registry.ollama.ai/library/tiny/1b", "tiny:1b"),
        ("registry.ollama.ai/library/tiny/1b", "library/Tiny:1B"),
        ("registry.ollama.ai/me/tiny/latest", "me/tiny"),
        ("hf.co/acme/tiny-GGUF/Q8_0", "hf.co/acme/tiny-GGUF:Q8_0"),
        ("ollama.com/library/tiny/latest", "registry.ollama.ai/library/tiny:latest"),
    ],
)
@pytest.mark.parametrize("root", ["manifests", "manifests-v2"])
def test_a_name_stands_for_one_file_pinned_by_its_digest(
    store: Store, q8_0: bytes, root: str, kept: str, asked: str
) -> None:
    store.add(kept, [PLAIN, ("model", q8_0)], root)
    store.add("registry.ollama.ai/library/other/latest", [("model", b"GGUF")])
    ((gguf,),) = (one.gguf for one in discover([f"ollama:{asked}"], []))
    digest = hashlib.sha256(q8_0).hexdigest()
    assert (gguf.label, gguf.bytes) == ("Q8_0", len(q8_0))
    assert [(file.path, file.sha256) for file in gguf.files] == [(f"sha256-{digest}", digest)]


def test_two_names_of_one_model_are_two_variants(
    store: Store, q8_0: bytes, tiny_gguf: Path
) -> None:
    changed = bytearray(q8_0)
    changed[-1] ^= 1
    store.add("registry.ollama.ai/library/tiny/a", [("model", q8_0)])
    store.add("registry.ollama.ai/library/tiny/b", [("model", bytes(changed))])
    store.add("registry.ollama.ai/library/tiny/again", [("model", q8_0)])
    store.add("registry.ollama.ai/library/tiny/whole", [("model", tiny_gguf.read_bytes())])
    names = [f"ollama:tiny:{tag}" for tag in ("a", "b", "again", "whole")]
    (found,) = discover(names, [])
    assert sorted(gguf.label for gguf in found.gguf) == ["F16", "Q8_0", "Q8_0-2"]
    assert found.unquantized is not None and found.unquantized.label == "F16"
    assert [gguf.label for one in discover(names, ["q8_0"]) for gguf in one.gguf] == [
        "F16",
        "Q8_0",
        "Q8_0-2",
    ]


def test_names_of_different_models_or_apart_are_models_of_their_own(
    store: Store, q8_0: bytes, tmp_path: Path
) -> None:
    write_tiny_gguf(tmp_path / "whole.gguf", layers=3)
    quantize(tmp_path / "whole.gguf", "Q8_0", tmp_path / "deep.gguf")
    store.add("registry.ollama.ai/library/tiny/1b", [("model", q8_0), ("projector", b"eyes")])
    store.add(
        "registry.ollama.ai/library/deep/2b", [("model", (tmp_path / "deep.gguf").read_bytes())]
    )
    (tmp_path / "mine-Q8_0.gguf").write_bytes(q8_0)
    names = ["ollama:tiny:1b", "ollama:deep:2b", str(tmp_path / "mine-Q8_0.gguf")]
    tiny, deep = discover(names, [])
    assert tiny.sources == ("ollama:tiny:1b", names[2]) and deep.sources == ("ollama:deep:2b",)
    assert any("projector of tiny:1b" in line for line in tiny.left_out) and not deep.left_out
    assert len(tiny.gguf) == 2
    apart = discover(names, [], apart=True)
    assert [one.sources for one in apart] == [(name,) for name in names]
    assert [len(one.gguf) for one in apart] == [1, 1, 1]
    assert len(discover([names[0]] * 2, [], apart=True)) == 2


def test_what_is_beside_the_weights_is_named_or_refused(store: Store, q8_0: bytes) -> None:
    store.add("registry.ollama.ai/library/sees/1b", [("model", q8_0), ("projector", b"eyes")])
    assert discover(["ollama:sees:1b"], [])[0].left_out == (
        "the projector of sees:1b (generates no text by itself)",
    )
    store.add("registry.ollama.ai/library/tuned/1b", [("model", q8_0), ("adapter", b"lora")])
    assert "ollama:tuned:1b: has a layer adapter" in refused("ollama:tuned:1b")
    store.add("registry.ollama.ai/library/two/1b", [("model", q8_0), ("model", b"GGUF")])
    assert "two:1b: holds 2 GGUF files, not one (its layers: model)" in refused("ollama:two:1b")
    store.add("registry.ollama.ai/library/mlx/1b", [("tensor; name=a; dtype=F16", b"weights")])
    assert "holds 0 GGUF files, not one (its layers: tensor)" in refused("ollama:mlx:1b")
    store.add("registry.ollama.ai/library/page/1b", [("model", b"<html>" * 100)])
    assert "not a GGUF file that can be used" in refused("ollama:page:1b")


@pytest.mark.parametrize(
    "manifest",
    [
        {"mediaType": "application/vnd.ollama.manifest.list.v2+json", "manifests": [{}]},
        {"layers": [{"mediaType": "application/vnd.ollama.image.model", "digest": "../../x"}]},
        {"layers": {"a": 1}},
        {"layers": [None, "x", {"digest": ["x"]}]},
    ],
)
def test_a_manifest_of_another_shape_is_one_line(store: Store, manifest: dict[str, Any]) -> None:
    store.write("registry.ollama.ai/library/odd/1b", json.dumps(manifest).encode())
    assert "odd:1b: holds 0 GGUF files, not one (its layers: none" in refused("ollama:odd:1b")


def test_a_name_that_is_not_there_is_told_with_those_that_are(
    store: Store, q8_0: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert f"no model of Ollama's in {store.folder}; set OLLAMA_MODELS" in refused("ollama:tiny")
    store.add("registry.ollama.ai/library/tiny/1b", [("model", q8_0)])
    store.add("hf.co/acme/tiny-GGUF/Q8_0", [("model", q8_0)])
    there = "it has: hf.co/acme/tiny-GGUF:Q8_0, tiny:1b"
    assert f"Ollama has no model tiny:latest here; {there}" in refused("ollama:tiny")
    assert there in refused("ollama:../../tiny:1b") and there in refused("ollama:")
    store.write("registry.ollama.ai/library/page/1b", b"<html>")
    assert "page/1b: not a JSON object" in refused("ollama:page:1b")
    (store.folder / "blobs" / f"sha256-{hashlib.sha256(q8_0).hexdigest()}").unlink()
    assert "is missing; `ollama pull tiny:1b` brings it" in refused("ollama:tiny:1b")
    monkeypatch.delenv("OLLAMA_MODELS")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert f"no model of Ollama's in {tmp_path}/home/.ollama/models or /usr" in refused("ollama:x")
    Store(tmp_path / "home/.ollama/models").add(
        "registry.ollama.ai/library/tiny/latest", [("model", q8_0)]
    )
    assert discover(["ollama:tiny"], [])[0].gguf[0].label == "Q8_0"


def test_a_file_of_the_store_by_its_path_and_what_replaces_it(store: Store, q8_0: bytes) -> None:
    blob = store.add("registry.ollama.ai/library/tiny/1b", [("model", q8_0)])
    ((gguf,),) = (one.gguf for one in discover([str(blob)], []))
    entry = {"file": gguf.files[0].path, "sha256": gguf.files[0].sha256}
    model = Model.model_validate({"path": str(blob.parent), "files": {gguf.label: entry}})
    output = store.folder / f"{blob.name}.gguf"
    fetch_gguf(model, output.name, output)
    assert output.read_bytes() == q8_0
    blob.write_bytes(q8_0[:-1] + b"x")
    with pytest.raises(LabError, match=r"sha256 is .*, expected"):
        fetch_gguf(model, output.name, output)
