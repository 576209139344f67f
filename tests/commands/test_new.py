"""``minillm-lab new``: from a name or files to an experiment, or one line and nothing written."""

import argparse
import json
import os
import pickle
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gguf
import pytest
import yaml

from conftest import ROOT
from hub_server import COMMIT, Fault, Hub
from minillm_lab.commands import fitting, new, written
from minillm_lab.commands.names import experiment_name, variant_names
from minillm_lab.experiment.config import Experiment, load_experiment
from minillm_lab.experiment.plan import Plan
from minillm_lab.experiment.sources import Model
from minillm_lab.header import read_header
from minillm_lab.models import needs
from minillm_lab.models.found import Found, Gguf
from minillm_lab.models.quantize import quantize
from minillm_lab.models.remote import File
from minillm_lab.wording import number
from tiny_model import as_safetensors, split_gguf, write_tiny_gguf

CAUSAL = json.dumps({"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"}).encode()
WEIGHTS = as_safetensors(b"weights" * 100)
PARTS = [f"Q4_K_M/tiny-Q4_K_M-0000{i}-of-00003.gguf" for i in (1, 2, 3)]


@dataclass
class Console:
    """The console program in a folder of its own, which looks like the lab's."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        (self.folder / "workflow/minillm_lab").mkdir(parents=True)
        (self.folder / "Snakefile").touch()

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        own = {"PYTHONPATH": str(ROOT / "workflow"), "HF_HOME": str(self.folder / "home")}
        own |= {"HF_HUB_ETAG_TIMEOUT": "1", "HF_HUB_DOWNLOAD_TIMEOUT": "1"}
        others = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
        return subprocess.run(
            [sys.executable, "-m", "minillm_lab", "new", *arguments],
            cwd=self.folder,
            env=others | own | self.environment,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def new(self, *arguments: str) -> str:
        done = self.run(*arguments)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    def text(self, name: str) -> str:
        return (self.folder / f"experiments/{name}.yaml").read_text()

    def experiment(self, name: str) -> Experiment:
        return load_experiment(yaml.safe_load(self.text(name)))

    def refuse(self, *arguments: str) -> str:
        """The one line of a refusal; nothing is written."""
        done = self.run(*arguments)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
        assert not (self.folder / "experiments").exists()
        return done.stderr


@pytest.fixture(scope="module")
def published(tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A repository's GGUF files: whole, in parts, by an importance matrix, of a name of its own."""
    folder = tmp_path_factory.mktemp("published")
    for type_ in ("Q8_0", "Q5_K_M", "Q4_K_M"):
        quantize(tiny_gguf, type_, folder / f"{type_}.gguf")
    by_matrix = {"quantize__imatrix__file": "tiny.imatrix"}
    parts = split_gguf(folder / "Q4_K_M.gguf", folder / "parts", "tiny-Q4_K_M", **by_matrix)
    return {
        "README.md": b"# tiny",
        "tiny-F16.gguf": tiny_gguf.read_bytes(),
        "tiny-Q8_0.gguf": (folder / "Q8_0.gguf").read_bytes(),
        "tiny-UD-Q4_K_XL.gguf": (folder / "Q5_K_M.gguf").read_bytes(),
        **{name: part.read_bytes() for name, part in zip(PARTS, parts, strict=True)},
    }


@pytest.fixture
def console(tmp_path: Path) -> Console:
    return Console(tmp_path)


@pytest.fixture
def hub(console: Console, published: dict[str, bytes]) -> Iterator[Hub]:
    with Hub() as hub:
        hub.publish("acme/tiny-GGUF", published)
        hub.publish("acme/tiny", {"config.json": CAUSAL, "model.safetensors": WEIGHTS})
        console.environment["HF_ENDPOINT"] = hub.url
        yield hub


def without(files: dict[str, bytes], *names: str) -> dict[str, bytes]:
    return {name: content for name, content in files.items() if name not in names}


# What is written.


def test_published_files_become_variants_under_their_own_names(console: Console, hub: Hub) -> None:
    said = console.new("acme/tiny-GGUF")
    assert "F16, the repository's own unquantized file" in said
    assert said.endswith("Next: make run EXPERIMENT=tiny-gguf\n")
    experiment = console.experiment("tiny-gguf")
    assert list(experiment.variants) == ["f16", "q8_0", "ud-q4_k_xl", "q4_k_m"]
    assert experiment.baseline == experiment.quality.reference == "f16"
    assert (experiment.results, experiment.readme) == (
        "results/tiny-gguf",
        "experiments/tiny-gguf.md",
    )
    files = experiment.models["tiny"].listed_gguf
    names = {label: [part.file for part in entry.files] for label, entry in files.items()}
    assert names["Q4_K_M"] == PARTS and names["UD-Q4_K_XL"] == ["tiny-UD-Q4_K_XL.gguf"]
    for entry in files.values():
        for part in entry.files:
            assert part.sha256 == hub.sha256("acme/tiny-GGUF", part.file)
    text = console.text("tiny-gguf")
    assert "UD-Q4_K_XL: # 964,832 bytes, 5.74 bits per weight, Q5_K_M by its header" in text
    assert "4.92 bits per weight, made with an importance matrix" in text
    assert COMMIT in text and max(map(len, text.splitlines())) <= 100


def test_what_it_takes_is_said_before_anything_is_downloaded(
    console: Console, hub: Hub, published: dict[str, bytes]
) -> None:
    weights = sum(len(content) for name, content in published.items() if name.endswith(".gguf"))
    assert f"Download: {number(weights / 1e6)} MB. Disk: about" in console.new("acme/tiny-GGUF")
    both = len(WEIGHTS) + len(CAUSAL)
    said = console.new("acme/tiny")
    assert f"Download: {number((both + needs.CONVERTER) / 1e6)} MB. Disk: about" in said
    assert re.search(
        r"^Download: .*\nTime: about \d+ (s|min) without the download"
        r" \(models .*, rounds .*, trials .*, quality .*\), by rates of another model",
        said,
        re.MULTILINE,
    )


def test_what_does_not_fit_is_said(
    tiny_gguf: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(Console(tmp_path).folder)
    monkeypatch.setattr(needs, "memory_limit", lambda: 10**8)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**6))
    (tmp_path / "mine.gguf").write_bytes(tiny_gguf.read_bytes())
    new.main(
        argparse.Namespace(source=["mine.gguf"], types=[], name=None, apart=False, reference=None)
    )
    said = capsys.readouterr().out
    assert "of 1.00 MB free" in said and "The disk is too small for that: name fewer" in said
    assert "of 100 MB." in said and "The memory is too small for that: name a reference" in said


@pytest.mark.parametrize(
    ("memory", "says"),
    [
        (1.9, "name a smaller reference (--reference q8_0) or a reference made"),
        (1.3, "name a smaller reference (--reference q4_k_m) or a reference made"),
        (1.1, "name a reference made elsewhere (--reference owner/name/file.npz), and take away"),
    ],
)
def test_a_reference_that_does_not_fit_has_a_way_out(
    tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: float, says: str
) -> None:
    monkeypatch.setattr(needs, "memory_limit", lambda: int(memory * 1e9))
    header = read_header(tiny_gguf)
    sizes = {"F16": 2e9, "Q8_0": 1e9, "Q4_K_M": 0.8e9}
    found = Found(
        [Gguf(label, [File(f"{label}.gguf", int(size))], header) for label, size in sizes.items()],
        [],
        tmp_path,
    )
    variants = {one.lower(): {"runtime": "llama.cpp", "file": one} for one in sizes}
    files = {label: {"file": f"{label}.gguf"} for label in sizes}
    config = {"model": "m", "models": {"m": {"path": "m", "files": files}}, "variants": variants}
    quality = {"reference": "f16"}
    more = {"baseline": "q4_k_m", "prompt": "Why?", "quality": quality}
    *_, line = needs.needs(load_experiment(config | more), {"m": found})
    assert f"The memory is too small for that: {says}" in line
    quality["reference"] = {"file": "r.npz"}
    _, *beside, line = needs.needs(load_experiment(config | more), {"m": found})
    assert all("its ratios come from rounds" in one for one in beside)
    assert bool(beside) == (memory > 1.2)  # else no variant but the baseline fits even alone
    assert line == "The memory is too small for that: take away variants that are too large."


@pytest.mark.parametrize(
    ("memory", "variants", "reference", "says"),
    [
        (3.0, ["f16", "q8_0", "q4_k_m"], None, ""),
        (2.2, ["f16", "q8_0", "q4_k_m"], "q8_0", "would be F16, which takes about 2.35 GB of"),
        (1.3, ["q8_0", "q4_k_m"], "q4_k_m", "the distance from q4_k_m, which is quantized itself."),
        (
            1.12,
            ["q8_0", "q4_k_m"],
            "q4_k_m",
            "the distance from q4_k_m, which is quantized itself.",
        ),
        (0.5, ["f16", "q8_0", "q4_k_m"], None, ""),
    ],
)
def test_variants_that_do_not_fit_are_left_out_and_said(
    tiny_gguf: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    memory: float,
    variants: list[str],
    reference: str | None,
    says: str,
) -> None:
    monkeypatch.setattr(fitting, "memory_limit", lambda: int(memory * 1e9))
    sizes = {"F16": 2e9, "Q8_0": 1e9, "Q4_K_M": 0.8e9}
    files = []
    for label, size in sizes.items():
        quantize(tiny_gguf, label, file := tmp_path / f"{label}.gguf")
        files.append(Gguf(label, [File(f"{label}.gguf", int(size))], read_header(file)))
    found = Found(files, [], tmp_path)
    chosen = fitting.fitting(written.Chosen(found, new.published(found)))
    assert list(chosen.variants) == variants
    assert (chosen.asked.value if chosen.asked else None) == reference
    assert says in (chosen.asked.why if chosen.asked else "")
    out = [] if "f16" in variants else ["f16, which takes about 2.12 GB of memory, where there are"]
    assert len(chosen.found.left_out) == len(out)
    assert all(b in a for a, b in zip(chosen.found.left_out, out, strict=True))
    assert [gguf.label.lower() for gguf in chosen.found.gguf] == variants  # no other is fetched
    experiment = load_experiment(yaml.safe_load(experiment_of(chosen)))
    assert experiment.baseline == variants[0]
    assert experiment.quality.reference == (reference or "f16")


def experiment_of(chosen: written.Chosen) -> str:
    return written.experiment_text({"m": chosen}, "m", "# minillm-lab new m")


@pytest.mark.parametrize(
    ("memory", "reference"),
    [(5.0, None), (4.0, "f16"), (2.0, "q8_0"), (1.0, "q4_k_m"), (0.86, "iq3_m")],
)
def test_a_reference_in_float32_that_does_not_fit_is_replaced(
    monkeypatch: pytest.MonkeyPatch, memory: float, reference: str | None
) -> None:
    monkeypatch.setattr(fitting, "memory_limit", lambda: int(memory * 1e9))
    found = Found([], [File("model.safetensors", int(2e9))], Path("m"))
    chosen = fitting.fitting(written.Chosen(found, new.made(found, ["Q8_0", "Q4_K_M", "IQ3_M"])))
    assert (chosen.asked.value if chosen.asked else None) == reference
    asked = load_experiment(yaml.safe_load(experiment_of(chosen))).quality.reference
    assert asked == reference or (reference is None and asked.dtype == "float32")


def test_headers_are_read_and_weights_are_not(console: Console, hub: Hub, tmp_path: Path) -> None:
    write_tiny_gguf(tmp_path / "F16.gguf", width=64, sentencepiece=100_000)
    quantize(tmp_path / "F16.gguf", "Q8_0", tmp_path / "Q8_0.gguf")
    names = ("F16.gguf", "Q8_0.gguf")
    hub.publish("acme/large-GGUF", {name: (tmp_path / name).read_bytes() for name in names})
    console.new("acme/large-GGUF")
    first, second = (hub.sent[name].bytes for name in names)
    assert first < 6e6 < len(hub.repositories["acme/large-GGUF"]["Q8_0.gguf"].content)
    assert second < 5e5  # its vocabulary is that of the first, and is passed over
    assert console.experiment("large-gguf").models["large"].listed_gguf.keys() == {"F16", "Q8_0"}


def test_headers_come_from_where_the_hub_points_and_the_token_stays(
    console: Console, hub: Hub, published: dict[str, bytes]
) -> None:
    console.environment["HF_TOKEN"] = "hf_" + "x" * 30
    with Hub() as storage:
        storage.publish("acme/tiny-GGUF", published)
        hub.faults |= {name: Fault(redirect_to=storage.url) for name in published}
        console.new("acme/tiny-GGUF")
        assert storage.sent and all("authorization" not in asked for *_, asked in storage.requests)
    assert any("authorization" in asked for *_, asked in hub.requests)
    assert len(console.experiment("tiny-gguf").variants) == 4


def test_types_choose_and_the_reference_stays(console: Console, hub: Hub) -> None:
    console.new("acme/tiny-GGUF", "--types", "q4_k_m,ud-q4_k_xl", "--name", "two")
    assert list(console.experiment("two").variants) == ["f16", "ud-q4_k_xl", "q4_k_m"]
    assert "tiny-Q8_0.gguf" not in hub.sent


def test_the_base_model_of_the_card_is_the_reference(
    console: Console, hub: Hub, published: dict[str, bytes]
) -> None:
    files = without(published, "tiny-F16.gguf")
    hub.publish("acme/quantized-GGUF", files, {"base_model": "acme/tiny"})
    assert "from acme/tiny, the base model that the card names" in console.new(
        "acme/quantized-GGUF"
    )
    experiment = console.experiment("quantized-gguf")
    source = experiment.models["quantized"].hub
    assert source is not None and source.repository == "acme/tiny"
    assert source.sha256 == {"model.safetensors": hub.sha256("acme/tiny", "model.safetensors")}
    assert Plan(experiment, "").reference_weights("quantized").endswith("/source/safetensors")
    assert experiment.baseline == "q8_0"


@pytest.mark.parametrize(
    ("card", "says"),
    [
        ({}, "Its card names no base model."),
        ({"base_model": "acme/gone"}, "does not serve: cannot fetch acme/gone at main: no such"),
        (
            {"base_model": "acme/tiny", "base_model_relation": "finetune"},
            "Its card names no base model.",
        ),
        ({"base_model": ["acme/a", "acme/b"]}, "Its card names no base model."),
        ({"base_model": "acme/encoder"}, "does not serve: acme/encoder: BertModel"),
    ],
)
def test_without_one_the_finest_file_is_and_it_says_so(
    console: Console, hub: Hub, published: dict[str, bytes], card: dict[str, Any], says: str
) -> None:
    bert = json.dumps({"architectures": ["BertModel"]}).encode()
    hub.publish("acme/encoder", {"config.json": bert, "model.safetensors": WEIGHTS})
    hub.publish("acme/quantized-GGUF", without(published, "tiny-F16.gguf"), card)
    said = console.new("acme/quantized-GGUF")
    assert says in said and "from q8_0, its finest file, which is quantized itself" in said
    experiment = console.experiment("quantized-gguf")
    assert experiment.baseline == experiment.quality.reference == "q8_0"
    commented = console.text("quantized-gguf").replace("\n# ", " ")
    assert says in commented


def test_a_base_model_that_cannot_be_reached_now_is_no_reason_for_another_reference(
    console: Console, hub: Hub, published: dict[str, bytes]
) -> None:
    hub.faults["config.json"] = Fault(error="broken")
    hub.publish("acme/q-GGUF", without(published, "tiny-F16.gguf"), {"base_model": "acme/tiny"})
    assert "acme/tiny/config.json" in console.refuse("acme/q-GGUF")


def test_a_gated_base_model_is_named(
    console: Console, hub: Hub, published: dict[str, bytes]
) -> None:
    hub.gated.add("acme/tiny")
    hub.publish("acme/q-GGUF", without(published, "tiny-F16.gguf"), {"base_model": "acme/tiny"})
    assert "does not serve: cannot fetch acme/tiny/config.json" in console.new("acme/q-GGUF")
    assert console.experiment("q-gguf").baseline == "q8_0"


def test_safetensors_become_a_ladder(console: Console, hub: Hub) -> None:
    console.new("acme/tiny")
    experiment = console.experiment("tiny")
    assert list(experiment.variants) == ["fp16", "f16", "q8_0", "q5_k_m", "q4_k_m"]
    source = experiment.models["tiny"].hub
    assert source is not None and (source.repository, source.revision) == ("acme/tiny", COMMIT)
    assert source.sha256 == {"model.safetensors": hub.sha256("acme/tiny", "model.safetensors")}
    console.new("acme/tiny", "--types", "Q6_K", "--name", "six")
    assert list(console.experiment("six").variants) == ["fp16", "f16", "q6_k"]


def test_files_and_folders_of_this_disk(
    console: Console, published: dict[str, bytes], tmp_path: Path
) -> None:
    for name, content in published.items():
        (path := tmp_path / "mine" / name).parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    console.new("mine")
    experiment = console.experiment("mine")
    assert experiment.models["mine"].path == "mine"  # as the workflow's folder sees it
    assert list(experiment.variants) == ["f16", "q8_0", "ud-q4_k_xl", "q4_k_m"]
    console.new("mine/tiny-F16.gguf", "--types", "Q6_K")
    alone = console.experiment("tiny-f16")
    assert list(alone.variants) == ["f16", "q6_k"] and alone.quality.reference == "f16"
    assert Plan(alone, "").weights("q6_k") == "models/tiny-f16/Q6_K+imatrix.gguf"
    console.new("mine/tiny-Q8_0.gguf")
    model: Model = console.experiment("tiny-q8_0").models["tiny-q8_0"]
    assert model.listed_gguf["Q8_0"].file == "tiny-Q8_0.gguf"
    parts = [f"mine/{name}" for name in PARTS]
    console.new("mine/tiny-Q8_0.gguf", *parts, "--name", "both")
    assert list(console.experiment("both").variants) == ["q8_0", "q4_k_m"]
    (folder := tmp_path / "plain").mkdir()
    (folder / "config.json").write_bytes(CAUSAL)
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    console.new("plain")
    assert next(iter(console.experiment("plain").variants)) == "fp16"


def test_twice_changes_nothing_and_asks_no_hub(console: Console, hub: Hub) -> None:
    console.new("acme/tiny-GGUF")
    path = console.folder / "experiments/tiny-gguf.yaml"
    path.write_text(edited := path.read_text().replace("rounds: 2", "rounds: 9"))
    asked = len(hub.requests)
    assert "is there already, and nothing was changed" in console.new("acme/tiny-GGUF")
    assert path.read_text() == edited and len(hub.requests) == asked


@pytest.mark.parametrize(
    "other", [["other/tiny-GGUF"], ["acme/tiny-GGUF", "--types", "Q8_0"]], ids=["source", "types"]
)
def test_the_place_of_another_experiment_is_not_taken(
    console: Console, hub: Hub, published: dict[str, bytes], other: list[str]
) -> None:
    console.new("acme/tiny-GGUF")
    before = console.text("tiny-gguf")
    hub.publish("other/tiny-GGUF", published)
    done = console.run(*other)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "is there already, for something else" in done.stderr and "--name" in done.stderr
    assert console.text("tiny-gguf") == before


def test_two_publishers_of_one_type_are_two_variants(
    console: Console, published: dict[str, bytes], tmp_path: Path
) -> None:
    for publisher in ("acme", "other"):
        (folder := tmp_path / "mine" / publisher / "tiny-GGUF").mkdir(parents=True)
        (folder / "tiny-Q8_0.gguf").write_bytes(published["tiny-Q8_0.gguf"])
    (tmp_path / "mine/tiny-F16.gguf").write_bytes(published["tiny-F16.gguf"])
    console.new("mine")
    experiment = console.experiment("mine")
    assert list(experiment.variants) == ["f16", "acme-q8_0", "other-q8_0"]
    plan = Plan(experiment, "")
    assert plan.weights("acme-q8_0") != plan.weights("other-q8_0")
    assert "mine/other/tiny-GGUF/tiny-Q8_0.gguf" in plan.models.local(
        "mine", Path(plan.weights("other-q8_0")).name
    )
    console.new("mine", "--types", "q8_0", "--name", "both")
    assert list(console.experiment("both").variants) == ["f16", "acme-q8_0", "other-q8_0"]


def test_two_repositories_of_one_model_are_one_experiment(
    console: Console, hub: Hub, published: dict[str, bytes]
) -> None:
    other = {name: published[name] for name in ("tiny-Q8_0.gguf", *PARTS)}
    hub.publish("other/tiny-GGUF", other)
    console.new("acme/tiny-GGUF", "other/tiny-GGUF", "--types", "q8_0,q4_k_m")
    experiment = console.experiment("tiny-gguf")
    assert list(experiment.variants) == [
        "f16", "acme-q8_0", "other-q8_0", "acme-q4_k_m", "other-q4_k_m"
    ]  # fmt: skip
    plan = Plan(experiment, "")
    assert len({plan.weights(variant) for variant in experiment.variants}) == 5
    files = experiment.models["tiny"].listed_gguf
    assert (files["other-Q8_0"].repository, files["acme-Q8_0"].repository) == (
        "other/tiny-GGUF",
        None,
    )
    assert [part.sha256 for part in files["other-Q4_K_M"].files] == [
        hub.sha256("other/tiny-GGUF", name) for name in PARTS
    ]


def test_an_address_of_the_hub_is_a_repository(console: Console, hub: Hub) -> None:
    console.new(f"{hub.url}/acme/tiny/")
    assert next(iter(console.experiment("tiny").variants)) == "fp16"


def test_what_generates_no_text_is_left_out_and_named(
    console: Console, hub: Hub, published: dict[str, bytes]
) -> None:
    others = {
        "mmproj-F16.gguf": headed("clip", "mmproj"),
        "tiny.imatrix.gguf": headed("llama", "imatrix"),
        "tiny.Q6_K.gguf.part1of2": b"GGUF",
        "copy-F16.gguf": published["tiny-F16.gguf"],
    }
    hub.publish("acme/seeing-GGUF", published | others)
    said = console.new("acme/seeing-GGUF")
    assert "Left out: mmproj-F16.gguf (mmproj: generates no text by itself)" in said
    assert "Left out: tiny.imatrix.gguf (imatrix: generates no text by itself)" in said
    assert "Left out: tiny.Q6_K.gguf.part1of2 (a GGUF cut up; join the pieces with cat)" in said
    assert "Left out: F16-2 (F16 is the unquantized one; --types F16-2 adds it)" in said
    assert "# Left out: mmproj-F16.gguf" in console.text("seeing-gguf")
    assert len(console.experiment("seeing-gguf").variants) == 4


def test_safetensors_beside_gguf_files_are_left_out_and_named(
    console: Console, hub: Hub, published: dict[str, bytes]
) -> None:
    two = {"a.safetensors": WEIGHTS, "b.safetensors": WEIGHTS, "config.json": CAUSAL}
    hub.publish("acme/both", {"tiny-Q8_0.gguf": published["tiny-Q8_0.gguf"]} | two)
    says = "Left out: a.safetensors and 1 more (the GGUF files beside it are taken)"
    assert says in console.new("acme/both")
    for name, file in hub.repositories["acme/both"].items():
        (path := console.folder / "mine" / name).parent.mkdir(exist_ok=True)
        path.write_bytes(file.content)
    assert says in console.new("mine")
    assert list(console.experiment("mine").variants) == ["q8_0"]


# Several models.


def test_files_of_two_models_are_two_models_each_with_its_own_reference(
    console: Console, published: dict[str, bytes], tmp_path: Path
) -> None:
    for name in ("tiny-F16.gguf", "tiny-Q8_0.gguf"):
        (tmp_path / name).write_bytes(published[name])
    (tmp_path / "deep").mkdir()
    write_tiny_gguf(tmp_path / "whole.gguf", layers=3)
    quantize(tmp_path / "whole.gguf", "Q4_K_M", tmp_path / "deep/Q4_K_M.gguf")
    said = console.new("tiny-F16.gguf", "deep/Q4_K_M.gguf", "tiny-Q8_0.gguf")
    assert "tiny: Quality is the distance from F16, the source's own unquantized file." in said
    assert "deep: None of the GGUF files is unquantized." in said
    experiment = console.experiment("tiny-vs-deep")
    assert list(experiment.variants) == ["tiny-f16", "tiny-q8_0", "deep-q4_k_m"]
    assert experiment.baseline == "tiny-f16"
    plan = Plan(experiment, "")
    assert [plan.model(variant) for variant in experiment.variants] == ["tiny", "tiny", "deep"]
    assert plan.reference_weights("tiny") == plan.weights("tiny-f16")
    assert plan.reference_weights("deep") == plan.weights("deep-q4_k_m")
    assert max(map(len, console.text("tiny-vs-deep").splitlines())) <= 100


def test_safetensors_are_a_model_each_and_types_are_made_of_each(
    console: Console, hub: Hub, tmp_path: Path
) -> None:
    hub.publish("other/Tiny", {"config.json": CAUSAL, "model.safetensors": WEIGHTS})
    (folder := tmp_path / "mine" / "tiny").mkdir(parents=True)
    (folder / "config.json").write_bytes(CAUSAL)
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    said = console.new("acme/tiny", "other/Tiny", "mine/tiny", "--types", "Q8_0,Q3_K_M")
    experiment = console.experiment("tiny")
    assert list(experiment.models) == ["acme-tiny", "other-tiny", "mine-tiny"]
    assert list(experiment.variants) == [
        f"{model}-{variant}"
        for model in experiment.models
        for variant in ("fp16", "f16", "q8_0", "q3_k_m")
    ]
    assert experiment.models["mine-tiny"].path == "mine/tiny"
    assert not any(model.reference for model in experiment.models.values())  # one serves all
    both = 2 * (len(WEIGHTS) + len(CAUSAL))
    assert f"Download: {number((both + needs.CONVERTER) / 1e6)} MB. Disk: about" in said


def test_the_hub_and_this_disk_are_set_against_each_other(
    console: Console, hub: Hub, published: dict[str, bytes], tmp_path: Path
) -> None:
    (tmp_path / "mine-Q8_0.gguf").write_bytes(published["tiny-Q8_0.gguf"])
    console.new("acme/tiny-GGUF", "mine-Q8_0.gguf", "--types", "Q8_0")
    experiment = console.experiment("tiny-vs-mine")
    assert list(experiment.variants) == ["tiny-f16", "tiny-q8_0", "mine-q8_0"]
    assert experiment.models["mine"].path == "." and experiment.models["tiny"].hub is not None


def test_the_base_model_named_beside_its_quantizations_is_one_model_with_them(
    console: Console, hub: Hub, published: dict[str, bytes]
) -> None:
    hub.publish("acme/q-GGUF", published, {"base_model": "acme/tiny"})
    console.new("acme/tiny", "acme/q-GGUF", "--types", "Q8_0")
    experiment = console.experiment("tiny-vs-q")
    assert list(experiment.variants) == ["fp16", "f16", "q8_0"] and len(experiment.models) == 1
    plan = Plan(experiment, "")
    assert plan.reference_weights("tiny-vs-q").endswith("/source/safetensors")
    assert plan.weights("q8_0").endswith("tiny-Q8_0.gguf")
    console.new("acme/tiny", "acme/q-GGUF", "--types", "Q8_0", "--apart", "--name", "apart")
    assert list(console.experiment("apart").models) == ["tiny", "q"]


def test_what_sees_images_lies_beside_a_model_wherever_it_is_named(
    console: Console, published: dict[str, bytes], tmp_path: Path
) -> None:
    (tmp_path / "mmproj-F16.gguf").write_bytes(headed("clip", "mmproj"))
    (tmp_path / "tiny-Q8_0.gguf").write_bytes(published["tiny-Q8_0.gguf"])
    said = console.new("mmproj-F16.gguf", "tiny-Q8_0.gguf", "--name", "seeing")
    assert "Left out: mmproj-F16.gguf (mmproj: generates no text by itself)" in said
    assert list(console.experiment("seeing").models) == ["seeing"]
    beside = ("mmproj-F16.gguf", "tiny-Q8_0.gguf", "--name", "apart", "--apart")
    assert "nothing in it generates text" in console.run(*beside).stderr


def test_apart_sets_files_of_one_shape_against_each_other(
    console: Console, published: dict[str, bytes], tmp_path: Path
) -> None:
    for name in ("first-Q8_0.gguf", "second-Q8_0.gguf"):
        (tmp_path / name).write_bytes(published["tiny-Q8_0.gguf"])
    files = ("first-Q8_0.gguf", "second-Q8_0.gguf")
    console.new(*files, "--apart")
    apart = console.experiment("first-vs-second")
    assert list(apart.variants) == ["first-q8_0", "second-q8_0"]
    assert list(apart.models) == ["first", "second"]
    console.new(*files, "--name", "one")
    assert list(console.experiment("one").models) == ["one"]
    console.new(files[0], files[0], "--apart", "--name", "itself")
    assert list(console.experiment("itself").variants) == ["first-q8_0", "first-2-q8_0"]


def test_an_experiment_keeps_the_letters_of_its_source() -> None:
    names = [experiment_name([source]) for source in ("/models/Modèle été", "acme/Ünï-1B-GGUF")]
    assert names == ["modele-ete", "uni-1b-gguf"]


def test_names_stay_as_short_as_a_config_allows_and_none_is_there_twice(
    console: Console, tiny_gguf: Path, tmp_path: Path
) -> None:
    names = [f"{'a' * 60}-{end}-Q8_0.gguf" for end in ("x", "y")]
    for name in names:
        (tmp_path / name).write_bytes(tiny_gguf.read_bytes())
    console.new(*names, "--apart", "--types", "Q4_K_M")
    (path,) = (tmp_path / "experiments").iterdir()
    experiment = console.experiment(path.stem)
    assert len(path.stem) <= 80 and len(experiment.models) == 2
    assert len(experiment.variants) == 4 and max(map(len, experiment.variants)) <= 80
    assert variant_names({"a": ["b-c", "f16"], "a-b": ["c"]}) == ["a-b-c", "a-f16", "a-b-c-2"]


def test_a_model_that_has_no_such_type_is_named(
    console: Console, hub: Hub, published: dict[str, bytes]
) -> None:
    hub.publish("acme/less-GGUF", without(published, "tiny-Q8_0.gguf"))
    said = console.refuse("acme/tiny-GGUF", "acme/less-GGUF", "--types", "Q8_0", "--apart")
    assert "acme/less-GGUF: no GGUF file 'Q8_0'; there are: F16, UD-Q4_K_XL, Q4_K_M" in said


def test_memory_and_disk_are_those_of_all_models_together(tiny_gguf: Path, tmp_path: Path) -> None:
    """A trial loads a variant and the baseline, which may be of another model."""
    quantize(tiny_gguf, "Q8_0", tmp_path / "tiny.gguf")
    header, variants, models = read_header(tmp_path / "tiny.gguf"), {}, {}
    for model, size in (("small", 600), ("large", 3000)):
        files = [("Q8_0", size), ("Q4_K_M", size // 2)]
        published = [
            Gguf(label, [File(f"{label}.gguf", mb * 10**6)], header) for label, mb in files
        ]
        models[model] = Found(published, [], Path(model), sources=(model,))
        variants |= {f"{model}-{label.lower()}": label for label, _ in files}
    experiment = load_experiment(
        {
            "models": {
                model: {
                    "path": model,
                    "files": {g.label: {"file": g.files[0].path} for g in found.gguf},
                    "reference": f"{model}-q8_0",
                }
                for model, found in models.items()
            },
            "variants": {
                name: {"runtime": "llama.cpp", "model": name.partition("-")[0], "file": label}
                for name, label in variants.items()
            },
            "baseline": "small-q8_0",
            "prompt": "Why?",
        }
    )
    (line, *_) = needs.needs(experiment, models)
    taken = 3600e6 + 2 * needs.VARIANT["llama.cpp"]
    assert f"Memory: about {needs.megabytes(taken)} (large-q8_0 and small-q8_0 taking" in line
    beside = needs.references(experiment, models) + needs.results(experiment)
    assert f"Download: nothing. Disk: about {needs.megabytes(beside)} of" in line
    with_more = changed(experiment, "Q6_K")
    (with_types, *_) = needs.needs(with_more, models)
    beside += needs.results(with_more) - needs.results(experiment)
    made = 2 * (needs.size_of("F16", models["small"]) + needs.size_of("Q6_K", models["small"]))
    assert f"Disk: about {needs.megabytes(made + beside)} of" in with_types


@pytest.mark.parametrize("width", [256, 576])  # of 576 the rows of most tensors fall back
def test_the_size_of_types_that_are_made_here_is_about_right(tmp_path: Path, width: int) -> None:
    source = tmp_path / "F16.gguf"
    write_tiny_gguf(source, width=width, feed=3 * width, layers=4, sentencepiece=2000)
    size = source.stat().st_size
    found = Found([Gguf("F16", [File(source.name, size)], read_header(source))], [], tmp_path)
    for type_ in ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0", "Q3_K_M"):
        quantize(source, type_, tmp_path / f"{type_}.gguf")
        made = (tmp_path / f"{type_}.gguf").stat().st_size
        assert needs.size_of(type_, found) == pytest.approx(made, rel=0.07), type_


def changed(experiment: Experiment, type_: str) -> Experiment:
    """The same experiment with a variant of each model that is made here."""
    config = experiment.model_dump(exclude_none=True)
    for model in config["models"]:
        config["variants"][f"{model}-made"] = {
            "runtime": "llama.cpp", "model": model, "quantization": type_
        }  # fmt: skip
    return load_experiment(config)


def test_another_spelling_of_a_source_is_the_same_experiment(
    console: Console, hub: Hub, published: dict[str, bytes], tmp_path: Path
) -> None:
    (tmp_path / "sf").mkdir()
    (tmp_path / "sf/tiny-Q8_0.gguf").write_bytes(published["tiny-Q8_0.gguf"])
    console.new("sf")
    for other in ("./sf", "sf/", str(tmp_path / "sf"), "workflow/../sf"):
        assert "nothing was changed" in console.new(other)
    console.new("acme/tiny")
    assert "nothing was changed" in console.new(f"{hub.url}/acme/tiny/")


def test_a_folder_that_is_no_lab_is_left_alone(console: Console, hub: Hub) -> None:
    (console.folder / "Snakefile").unlink()
    assert "this folder is no lab" in console.refuse("acme/tiny")


# What is refused.


def headed(architecture: str, kind: str = "model") -> bytes:
    """A GGUF file of an architecture, with one tensor."""
    import tempfile

    import numpy as np

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.gguf"
        writer = gguf.GGUFWriter(path, architecture)
        writer.add_type(kind)
        writer.add_tensor("a", np.zeros(32, np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path.read_bytes()


def config(*architectures: str) -> bytes:
    return json.dumps({"architectures": architectures}).encode()


REFUSED: dict[str, tuple[dict[str, bytes], str]] = {
    "no weights": ({"README.md": b"# x"}, "has no weights: neither *.gguf nor *.safetensors"),
    "pickles": (
        {"config.json": CAUSAL, "pytorch_model.bin": pickle.dumps({})},
        "its weights are pickles alone (pytorch_model.bin)",
    ),
    "an encoder": (
        {"config.json": config("BertModel"), "model.safetensors": WEIGHTS},
        "BertModel: not a model that generates text",
    ),
    "a model that sees": (
        {"config.json": config("LlavaForConditionalGeneration"), "model.safetensors": WEIGHTS},
        "LlavaForConditionalGeneration: not a model that generates text from text alone",
    ),
    "quantized safetensors": (
        {
            "config.json": json.dumps(
                json.loads(CAUSAL) | {"quantization_config": {"quant_method": "awq"}}
            ).encode(),
            "model.safetensors": WEIGHTS,
        },
        "its weights are quantized already (awq); name the unquantized model",
    ),
    "an encoder as GGUF": ({"x-F16.gguf": headed("nomic-bert")}, "nomic-bert: generates no text"),
    "eyes alone": ({"mmproj-F16.gguf": headed("clip", "mmproj")}, "nothing in it generates text"),
    "no config": ({"model.safetensors": WEIGHTS}, "has no config.json"),
    "a config that is none": (
        {"model.safetensors": WEIGHTS, "config.json": b"<html>"},
        "acme/odd/config.json: not a JSON object",
    ),
    "a missing part of safetensors": (
        {
            "config.json": CAUSAL,
            "model-1.safetensors": WEIGHTS,
            "model.safetensors.index.json": json.dumps(
                {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
            ).encode(),
        },
        "names model-2.safetensors, which is missing",
    ),
    "an index of something else": (
        {
            "config.json": CAUSAL,
            "model.safetensors.index.json": b'{"weight_map": {"a": ["x"], "b": 3}}',
            "a.safetensors": WEIGHTS,
        },
        "model.safetensors.index.json does not say where the weights are",
    ),
    "an index of nothing": (
        {
            "config.json": CAUSAL,
            "model.safetensors.index.json": b'{"weight_map": {}}',
            "a.safetensors": WEIGHTS,
        },
        "model.safetensors.index.json does not say where the weights are",
    ),
    "names that no experiment can hold": (
        {"config.json": CAUSAL, "a b.safetensors": WEIGHTS},
        "acme/odd: a b.safetensors: its name holds a space",
    ),
    "such a name of a GGUF file": (
        {"a {x}-F16.gguf": b"GGUF" * 100},
        "a {x}-F16.gguf: its name holds a space",
    ),
    "another case": ({"x-F16.GGUF": b"GGUF" * 100}, "its files end in .GGUF; only .gguf is known"),
    "text for a terminal": (
        {
            "config.json": json.dumps(
                json.loads(CAUSAL) | {"quantization_config": {"quant_method": "a\n\x1b[31mb"}}
            ).encode(),
            "model.safetensors": WEIGHTS,
        },
        r"quantized already (a \u{1b}[31mb)",
    ),
    "no model": ({"x-Q8_0.gguf": b"<html>" * 100}, "x-Q8_0.gguf: not a GGUF file that can be used"),
    "an empty file": ({"x-Q8_0.gguf": b""}, "x-Q8_0.gguf: not a GGUF file that can be used"),
}


@pytest.mark.parametrize(("files", "says"), REFUSED.values(), ids=REFUSED.keys())
def test_a_repository_without_a_model_is_one_line(
    console: Console, hub: Hub, files: dict[str, bytes], says: str
) -> None:
    hub.publish("acme/odd", files)
    assert says in console.refuse("acme/odd")


def test_a_folder_without_a_model_is_one_line(
    console: Console, tiny_gguf: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "page.gguf").write_bytes(b"<html>" * 100)
    for name in ("blob.gguf", "sha256-0"):
        (tmp_path / name).write_bytes(tiny_gguf.read_bytes())
    assert "empty: has no weights" in console.refuse("empty")
    assert "page.gguf: not a GGUF file that can be used" in console.refuse("page.gguf")
    assert "gone.gguf: no such file" in console.refuse("gone.gguf")
    assert "empty: has no weights" in console.refuse("blob.gguf", "empty")
    assert "its name does not end in .gguf" in console.refuse("sha256-0")
    assert "../gone: no such file or folder" in console.refuse("../gone")
    assert "File name too long" in console.refuse("a" * 5000)


def test_files_of_two_models_are_no_variants_of_one(
    console: Console, tiny_gguf: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/a.gguf").write_bytes(tiny_gguf.read_bytes())
    write_tiny_gguf(tmp_path / "mine/deep.gguf", layers=3)
    assert "mine: its files are of different models (a.gguf, deep.gguf)" in console.refuse("mine")
    console.new("mine/deep.gguf")


@pytest.mark.parametrize("place", ["hub", "disk"])
def test_parts_that_are_missing_or_of_different_splits(
    console: Console, hub: Hub, published: dict[str, bytes], tmp_path: Path, place: str
) -> None:
    def refused(files: dict[str, bytes]) -> str:
        if place == "hub":
            hub.publish("acme/odd", files)
            return console.refuse("acme/odd")
        for name, content in files.items():
            (path := tmp_path / "odd" / name).parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return console.refuse("odd")

    parts = {name: published[name] for name in PARTS}
    assert f"the part {PARTS[1]} is missing" in refused(without(parts, PARTS[1]))
    write_tiny_gguf(tmp_path / "deep", layers=3)
    other = split_gguf(tmp_path / "deep", tmp_path / "other", "tiny-Q4_K_M")
    assert "its parts are of different splits" in refused(parts | {PARTS[1]: other[1].read_bytes()})


def test_a_misspelt_name_gets_near_ones(console: Console, hub: Hub) -> None:
    said = console.refuse("acme/tinny-GGUF")
    assert "no such repository" in said and "near it: acme/tiny-GGUF, acme/tiny" in said
    assert "near it" not in console.refuse("nobody/else")
    assert "no repository's name (owner/name)" in console.refuse("tiny")


@pytest.mark.parametrize("name", ["acme/tiny-GGUF", "acme/tiny"])
def test_a_gated_repository_is_one_line(console: Console, hub: Hub, name: str) -> None:
    hub.gated.add(name)
    said = console.refuse(name)
    assert "gated: accept its terms on the hub" in said and "near it" not in said


@pytest.mark.parametrize(
    ("error", "says"),
    [
        ("bad token", "the hub refuses the token"),
        ("too many requests", "429 Too Many Requests"),
        ("broken", "the hub answers 500: try again later"),
    ],
)
def test_an_error_of_the_hub_is_one_line(console: Console, hub: Hub, error: str, says: str) -> None:
    hub.error = error
    assert says in console.refuse("acme/tiny-GGUF")


def test_no_connection_is_one_line(console: Console, hub: Hub) -> None:
    hub.hangs = True
    assert "the hub cannot be reached (timed out)" in console.refuse("acme/tiny-GGUF")
    hub.hangs = False
    hub.faults["tiny-F16.gguf"] = Fault(cut_after=1000)
    assert "tiny-F16.gguf" in console.refuse("acme/tiny-GGUF")
    hub.faults["tiny-F16.gguf"] = Fault(stall_after=1000)
    assert "the hub cannot be reached (timed out)" in console.refuse("acme/tiny-GGUF")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        console.environment["HF_ENDPOINT"] = f"http://127.0.0.1:{closed.getsockname()[1]}"
        assert "the hub cannot be reached" in console.refuse("acme/tiny-GGUF")
    console.environment["HF_HUB_OFFLINE"] = "1"
    assert "HF_HUB_OFFLINE is set" in console.refuse("acme/tiny-GGUF")


def test_types_and_names_that_cannot_be(console: Console, hub: Hub) -> None:
    said = console.refuse("acme/tiny-GGUF", "--types", "Q2_K")
    assert "no GGUF file 'Q2_K'; there are: F16, Q8_0, UD-Q4_K_XL, Q4_K_M" in said
    assert "no type 'Q9_9' can be made" in console.refuse("acme/tiny", "--types", "q9_9")
    assert "',' names no type" in console.run("acme/tiny", "--types", ",").stderr
    assert "--name 'My Model'" in console.refuse("acme/tiny", "--name", "My Model")


def test_an_unquantized_file_that_is_left_out_can_be_added(
    console: Console, tiny_gguf: Path, tmp_path: Path
) -> None:
    for name in ("m-F16.gguf", "m-UD-Q4_K_XL.gguf"):
        (tmp_path / name).write_bytes(tiny_gguf.read_bytes())
    files = ("m-F16.gguf", "m-UD-Q4_K_XL.gguf", "--name")
    said = console.new(*files, "one")
    assert "--types UD-Q4_K_XL adds it" in said
    assert [*console.experiment("one").variants] == ["f16", "q8_0", "q5_k_m", "q4_k_m"]
    console.new(*files, "two", "--types", "UD-Q4_K_XL,Q6_K")
    assert [*console.experiment("two").variants] == ["f16", "ud-q4_k_xl", "q6_k"]


def test_a_checksum_of_digits_alone_is_a_text() -> None:
    source = File("a.gguf", 1, "0" * 64)
    assert yaml.safe_load("{" + ", ".join(written.pinned(source)) + "}")["sha256"] == "0" * 64


# Another reference than the unquantized weights.


@pytest.fixture
def shared(hub: Hub, published: dict[str, bytes], reference: Path) -> Hub:
    """The hub with somebody's reference beside the GGUF files, and a card that names a base."""
    files = published | {"quality/ref.npz": reference.read_bytes(), "old.npz": b"PK"}
    hub.publish("acme/shared-GGUF", files, {"base_model": "acme/tiny"})
    return hub


def test_a_reference_on_the_hub_is_pinned(console: Console, shared: Hub) -> None:
    name = "acme/shared-GGUF/quality/ref.npz"
    said = console.new("acme/shared-GGUF", "--reference", name)
    assert f"Quality is the distance from {name}, a reference made elsewhere (" in said
    assert "Left out: F16 (the reference is another; --types F16 adds it)" in said
    experiment = console.experiment("shared-gguf")
    assert list(experiment.variants) == ["q8_0", "ud-q4_k_xl", "q4_k_m"]
    assert experiment.quality is not None
    assert experiment.quality.reference.model_dump() == {
        "hub": {
            "repository": "acme/shared-GGUF",
            "revision": COMMIT,
            "file": "quality/ref.npz",
            "sha256": shared.sha256("acme/shared-GGUF", "quality/ref.npz"),
        }
    }
    source = experiment.models["shared"].hub
    assert source is not None and source.repository is None  # nor is the base model named
    assert max(map(len, console.text("shared-gguf").splitlines())) <= 100
    console.new("acme/shared-GGUF", "--reference", name, "--types", "f16,q8_0", "--name", "both")
    assert list(console.experiment("both").variants) == ["f16", "q8_0"]
    assert "nothing was changed" in console.new("acme/shared-GGUF", "--reference", name)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("acme/shared-GGUF/gone.npz", "has no 'gone.npz'; there are: quality/ref.npz, old.npz"),
        ("acme/shared-GGUF", "which of its files?; there are: quality/ref.npz, old.npz"),
        ("acme/tiny/ref.npz", "acme/tiny has no 'ref.npz'; it has no *.npz"),
        ("acme/shard-GGUF/ref.npz", "no such repository, or it is private"),
        ("gone.npz", "no such file here"),
        ("../gone.npz", "no such file here"),
        ("q2_k", "'q2_k': no such variant; there are: q8_0, ud-q4_k_xl, q4_k_m"),
    ],
)
def test_a_reference_that_is_not_there_is_one_line(
    console: Console, shared: Hub, name: str, says: str
) -> None:
    said = console.refuse("acme/shared-GGUF", "--reference", name)
    assert says in said
    assert "shard" not in name or "near it: acme/shared-GGUF" in said


def test_a_reference_on_this_disk_is_opened_first(
    console: Console, shared: Hub, reference: Path
) -> None:
    (console.folder / "mine.npz").write_bytes(reference.read_bytes())
    (console.folder / "page.npz").write_bytes(b"<html>")
    said = console.refuse("acme/shared-GGUF", "--reference", "page.npz")
    assert "page.npz: not a usable reference: it is not an .npz file" in said
    (console.folder / "here").mkdir()
    (console.folder / "here/F16.gguf").write_bytes(b"GGUF")
    said = console.refuse("acme/shared-GGUF", "--reference", "here/F16.gguf")
    assert "no .npz file, as a reference is" in said  # nor is a model here called a damaged one
    assert "names nothing" in console.refuse("acme/shared-GGUF", "--reference", " ")
    console.new("acme/shared-GGUF", "--reference", "mine.npz", "--types", "q4_k_m")
    experiment = console.experiment("shared-gguf")
    assert Plan(experiment, "").models.path("shared", "Q4_K_M").endswith(".split")
    assert experiment.quality is not None
    assert experiment.quality.reference.model_dump() == {"file": "mine.npz"}


@pytest.mark.parametrize(
    ("source", "types", "given", "chosen", "variants"),
    [
        ("acme/shared-GGUF", [], "Q8_0", "q8_0", "q8_0 ud-q4_k_xl q4_k_m"),
        ("acme/shared-GGUF", ["--types", "q4_k_m"], "q8_0", "q8_0", "q8_0 q4_k_m"),
        ("acme/shared-GGUF", [], "Q5_K_M", "ud-q4_k_xl", "q8_0 ud-q4_k_xl q4_k_m"),
        ("acme/shared-GGUF", ["--types", "q8_0"], "f16", "f16", "f16 q8_0"),
        ("acme/tiny", [], "q8_0", "q8_0", "fp16 f16 q8_0 q5_k_m q4_k_m"),
        ("acme/tiny", ["--types", "Q4_K_M"], "q6_k", "q6_k", "fp16 f16 q4_k_m q6_k"),
        ("acme/tiny", [], "f16", "f16", "fp16 f16 q8_0 q5_k_m q4_k_m"),
    ],
)
def test_a_variant_can_be_the_reference(
    console: Console,
    shared: Hub,
    source: str,
    types: list[str],
    given: str,
    chosen: str,
    variants: str,
) -> None:
    said = console.new(source, *types, "--reference", given, "--name", "x")
    assert f"Quality is the distance from {chosen}, as --reference asked." in said
    experiment = console.experiment("x")
    assert " ".join(experiment.variants) == variants
    assert experiment.quality is not None and experiment.quality.reference == chosen
    assert Plan(experiment, "").with_reference == [experiment.model]


def test_each_of_several_models_gets_the_reference_that_is_asked_for(
    console: Console, hub: Hub, published: dict[str, bytes], reference: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine-Q8_0.gguf").write_bytes(published["tiny-Q8_0.gguf"])
    both = ("acme/tiny-GGUF", "mine-Q8_0.gguf")
    console.new(*both, "--reference", "Q8_0", "--name", "type")
    of_type = console.experiment("type")
    assert [of_type.reference_of(m) for m in of_type.models] == ["tiny-q8_0", "mine-q8_0"]
    assert "tiny-f16" not in of_type.variants
    files = {f"r.{model}.npz": reference.read_bytes() for model in ("mine", "tiny")}
    hub.publish("acme/references", files)
    console.new(*both, "--reference", "acme/references/r.{model}.npz", "--name", "hub")
    fetched = console.experiment("hub").published_references()
    assert [file.file for file in fetched] == [*files]
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    console.new(*both, "--reference", "r.{model}.npz", "--name", "disk")
    plan = Plan(console.experiment("disk"), "")
    assert not plan.with_reference
    for name in ("hub", "disk"):
        _, *lines = console.text(name).splitlines()  # the first is the command as it was given
        assert max(map(len, lines)) <= 100


def test_one_reference_of_several_models_is_refused(
    console: Console, hub: Hub, published: dict[str, bytes], reference: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine-Q8_0.gguf").write_bytes(published["tiny-Q8_0.gguf"])
    (tmp_path / "r.npz").write_bytes(reference.read_bytes())
    both = ("acme/tiny-GGUF", "mine-Q8_0.gguf", "--reference")
    said = console.refuse(*both, "r.npz")
    assert "--reference r.npz: one file cannot be the reference of 2 models; write {model}" in said
    assert "which are tiny, mine" in said
    assert "'q4_k_m': no such variant; there are: mine-q8_0" in console.refuse(*both, "q4_k_m")


def test_the_weights_in_transformers_can_be_the_reference_of_each(
    console: Console, hub: Hub
) -> None:
    hub.publish("acme/other", {"config.json": CAUSAL, "model.safetensors": WEIGHTS})
    console.new("acme/tiny", "acme/other", "--reference", "fp16", "--name", "x")
    experiment = console.experiment("x")
    references = [experiment.reference_of(model) for model in experiment.models]
    assert references == ["tiny-fp16", "other-fp16"]
