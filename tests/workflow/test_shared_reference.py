"""A reference made by one person scores on another's machine, which has no unquantized weights."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import Lab, tiny_config
from hub_server import COMMIT, Hub
from minillm_lab.models.quantize import quantize

REPOSITORY = "acme/tiny-GGUF"
FILE = "quality/reference.npz"
PLACE = f"models/.references/{REPOSITORY}/{COMMIT}/{FILE}"
RUN = ("--cores", "1", "--configfile", "experiments/tiny-gguf.yaml")
SCORE = "results/tiny-gguf/quality/q4_k_m.json"
QUALITY = {"chunks": 2, "questions": None}


@dataclass
class Published:
    """A publisher's folder and what the hub has of it."""

    hub: Hub
    lab: Lab


@pytest.fixture(scope="module")
def published(tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Published]:
    folder = tmp_path_factory.mktemp("publisher")
    variants = {
        name: {"runtime": "llama.cpp", "quantization": name.upper(), "imatrix": "none"}
        for name in ("q8_0", "q4_k_m")
    }
    config = tiny_config(tiny_gguf, variants=variants, baseline="q8_0", quality=QUALITY)
    lab = Lab(folder / "lab", config)
    lab.run("results/quality/reference.tiny.npz")
    files = {FILE: lab.path("results/quality/reference.tiny.npz").read_bytes()}
    files["tiny-F16.gguf"] = tiny_gguf.read_bytes()
    for name in variants:
        quantize(tiny_gguf, name.upper(), folder / f"tiny-{name}.gguf")
        files[f"tiny-{name}.gguf"] = (folder / f"tiny-{name}.gguf").read_bytes()
    with Hub() as hub:
        hub.publish(REPOSITORY, files, {"base_model": "acme/tiny"})
        yield Published(hub, lab)


@pytest.fixture(scope="module")
def user(published: Published, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """Somebody else's experiment, as ``new`` writes it, shortened."""
    folder = tmp_path_factory.mktemp("user") / "lab"
    lab = Lab(folder, {}, {"HF_ENDPOINT": published.hub.url, "HF_HOME": str(folder / "home")})
    command = ["new", REPOSITORY, "--types", "Q8_0,Q4_K_M", "--reference", f"{REPOSITORY}/{FILE}"]
    said = lab.program(*command)
    assert f"the distance from {REPOSITORY}/{FILE}, a reference made elsewhere" in said
    written = yaml.safe_load(lab.path("experiments/tiny-gguf.yaml").read_text())
    short = tiny_config(rounds=1, trials=1, repetitions=1, warmups=0)
    kept = ("model", "models", "variants", "baseline", "results", "readme")
    lab.config |= short | {key: written[key] for key in kept}
    lab.config["quality"] = written["quality"] | QUALITY
    write(lab)
    return lab


def write(lab: Lab, **reference: Any) -> None:
    """Write the experiment, with some keys of its reference changed."""
    pinned = lab.config["quality"]["reference"]["hub"] | reference
    quality = lab.config["quality"] | {"reference": {"hub": pinned}}
    text = yaml.safe_dump(lab.config | {"quality": quality})
    lab.path("experiments/tiny-gguf.yaml").write_text(text)


def test_the_same_figures_without_the_unquantized_weights(published: Published, user: Lab) -> None:
    user.snakemake(*RUN)
    published.lab.run("results/quality/q8_0.json", "results/quality/q4_k_m.json")
    for name in ("q8_0", "q4_k_m"):
        theirs = published.lab.json(f"results/quality/{name}.json")
        ours = user.json(f"results/tiny-gguf/quality/{name}.json")
        assert ours["metrics"] == theirs["metrics"] and ours["metrics"]["kld_mean"]["value"] > 0
    assert "tiny-F16.gguf" not in published.hub.sent
    assert {path.name for path in user.path("models/tiny").iterdir()} == {"source"}
    assert user.path(PLACE).read_bytes() == published.hub.repositories[REPOSITORY][FILE].content
    page = user.path("experiments/tiny-gguf.md").read_text()
    assert "negligible" in page or "loss" in page
    assert str(user.folder) not in page and ".references" not in page
    assert "Nothing to be done" in user.snakemake(*RUN).stderr


def test_another_file_of_the_hub_is_scored_against_anew(published: Published, user: Lab) -> None:
    files = published.hub.repositories[REPOSITORY]
    files["again.npz"] = files[FILE]
    write(user, file="again.npz")
    planned = user.planned("--configfile", "experiments/tiny-gguf.yaml")
    write(user)
    assert (planned["fetch_reference"], planned["score"]) == (1, 2)
    assert "round" not in planned and "trial" not in planned


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"sha256": "0" * 64}, f"{REPOSITORY}/{FILE} at {COMMIT}: sha256 is "),
        ({"file": "gone.npz"}, f"cannot fetch {REPOSITORY}/gone.npz at {COMMIT}: no such file"),
        ({"repository": "acme/gone"}, "no such repository, or it is private"),
        ({"revision": "f" * 40}, "no such revision: check it in the config"),
    ],
    ids=["checksum", "file", "repository", "revision"],
)
def test_what_cannot_be_fetched_is_one_line_and_leaves_nothing(
    user: Lab, changed: dict[str, str], says: str
) -> None:
    folder = user.path("models/.references")
    before = folder.rename(folder.with_name("kept")) if folder.exists() else None
    write(user, **changed)
    done = user.snakemake(SCORE, *RUN, "--forcerun", "fetch_reference", ok=False)
    write(user)
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert lines and set(lines) == {lines[0]} and says in lines[0]
    assert not [path for path in folder.rglob("*") if path.is_file()]
    if before:
        before.rename(folder)


def test_a_reference_of_another_text_leaves_the_speeds_and_the_reason(user: Lab) -> None:
    user.config["quality"]["chunks"] = 3
    write(user)
    user.snakemake(SCORE, *RUN)
    (why,) = user.json(SCORE)["warnings"]
    user.config["quality"]["chunks"] = 2
    write(user)
    assert "was made from another text, other questions or another protocol" in why


def test_a_reference_is_the_same_bytes_again_and_names_no_folder(published: Published) -> None:
    name = "results/quality/reference.tiny.npz"
    path = published.lab.path(name)
    before = path.read_bytes()
    assert "reference" in published.lab.run(name, "--forcerun", name).stderr
    assert path.read_bytes() == before
    assert str(published.lab.folder.parent).encode() not in before
