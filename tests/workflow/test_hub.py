"""The workflow with a model from the hub: killed during its download, started again, finished."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import Lab, tiny_config
from hub_server import COMMIT, Fault, Hub
from minillm_lab.models.quantize import quantize
from minillm_lab.models.safetensors import write_safetensors
from tiny_model import write_tiny_gguf

WEIGHTS = "model.safetensors"
GGUF = "tiny-q4_k_m.gguf"
COMMAND = ("--cores", "1", "--configfile", "experiments/tiny.yaml")
KEPT = 10 << 20  # huggingface_hub hands on what arrives in pieces of 10 MiB


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """A tiny Qwen2 model as its publisher would ship it: safetensors, and Q4_K_M as GGUF."""
    folder = tmp_path_factory.mktemp("publisher")
    write_tiny_gguf(folder / "F16.gguf", feed=8192)  # wide enough to be killed during its download
    write_safetensors(folder / "F16.gguf", folder / "tiny")
    quantize(folder / "F16.gguf", "Q4_K_M", folder / GGUF)
    with Hub() as hub:
        hub.publish("acme/tiny", folder / "tiny")
        hub.publish("acme/tiny-GGUF", {GGUF: (folder / GGUF).read_bytes()})
        yield hub


@pytest.fixture(scope="module")
def lab(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """An experiment shaped like experiments/qwen2.5-0.5b-instruct.yaml."""
    gguf = {"file": GGUF, "sha256": hub.sha256("acme/tiny-GGUF", GGUF)}
    repository = {
        "repository": "acme/tiny",
        "revision": COMMIT,
        "sha256": {WEIGHTS: hub.sha256("acme/tiny", WEIGHTS)},
        "gguf": {
            "repository": "acme/tiny-GGUF",
            "revision": COMMIT,
            "files": {"Q4_K_M": gguf},
        },
    }
    config = tiny_config(
        models={"tiny": {"hub": repository}},
        variants={
            "fp16": {"runtime": "transformers", "dtype": "float16"},
            "q4_k_m": {"runtime": "llama.cpp", "quantization": "Q4_K_M"},
        },
        baseline="fp16",
        rounds=1,
        trials=1,
        repetitions=1,
        warmups=0,
        quality={"chunks": 2, "questions": None},
        results="results/tiny",
        readme="experiments/tiny.md",
    )
    folder = tmp_path_factory.mktemp("hub") / "lab"
    lab = Lab(folder, config, {"HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "home")})
    lab.path("experiments").mkdir()
    lab.path("config.yaml").rename(lab.path("experiments/tiny.yaml"))
    return lab


@pytest.fixture(scope="module")
def killed(hub: Hub, lab: Lab) -> int:
    """Kill the workflow and all it started while the weights arrive; the bytes sent by then."""
    hub.faults[WEIGHTS] = Fault(stall_after=KEPT + (2 << 20))
    with lab.path("killed.log").open("wb") as said:
        process = subprocess.Popen(
            lab.command(*COMMAND),
            cwd=lab.folder,
            env=lab.env(),
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
        try:
            deadline = time.monotonic() + 120
            part = f"models--acme--tiny/blobs/{hub.sha256('acme/tiny', WEIGHTS)}.incomplete"
            beginning = lab.path("home/hub") / part
            while not beginning.exists() or beginning.stat().st_size < KEPT:
                said_so_far = lab.path("killed.log").read_text()
                assert process.poll() is None and time.monotonic() < deadline, said_so_far
                time.sleep(0.02)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(timeout=60)
    hub.faults.clear()
    return hub.sent[WEIGHTS].bytes


@pytest.fixture(scope="module")
def finished(lab: Lab, killed: int) -> Lab:
    """The same command again; the lock of the killed one is nobody's."""
    assert list(lab.path(".snakemake/locks").iterdir())
    lab.snakemake(*COMMAND)
    return lab


def sources(lab: Lab) -> Path:
    return lab.path("models/tiny/source")


def test_a_killed_download_leaves_no_model(lab: Lab, killed: int) -> None:
    assert not (sources(lab) / "safetensors").exists()
    assert not list(lab.folder.glob("results/tiny/*.json"))


def test_the_download_continues_where_it_was_killed(hub: Hub, killed: int, finished: Lab) -> None:
    size = len(hub.repositories["acme/tiny"][WEIGHTS].content)
    assert hub.sent[WEIGHTS].starts == [0, KEPT]
    assert hub.sent[WEIGHTS].bytes - killed == size - KEPT


def test_the_results_name_the_published_files(hub: Hub, finished: Lab) -> None:
    published = {
        "fp16": ("models/tiny/source/safetensors/model.safetensors", "acme/tiny", WEIGHTS),
        "q4_k_m": (f"models/tiny/source/{GGUF}", "acme/tiny-GGUF", GGUF),
    }
    for variant, (path, repository, name) in published.items():
        model = finished.json(f"results/tiny/{variant}.json")["model"]
        content = hub.repositories[repository][name].content
        sha256 = hub.sha256(repository, name)
        assert model["files"] == [{"path": path, "bytes": len(content), "sha256": sha256}]
        assert finished.path(path).read_bytes() == content
    made = {f.name for f in finished.path("models/tiny").iterdir()}
    assert made == {"source"}  # what is shipped is not made here
    shipped = {f.name for f in sources(finished).iterdir() if not f.name.startswith(".")}
    assert shipped == {"safetensors", "tokenizer", GGUF}


def test_both_variants_did_the_same_work(finished: Lab) -> None:
    prompt = finished.json("results/tiny/prompts/tiny.json")["token_ids"]
    assert prompt
    for variant in ("fp16", "q4_k_m"):
        result = finished.json(f"results/tiny/{variant}.json")
        assert len(result["output"]["token_ids"]) == 8
        assert result["protocol"]["prompt_tokens"] == len(prompt)
        # Each runtime's own tokenizer is held against the prompt's ids.
        assert not [w for w in result["warnings"] if "tokenizers disagree" in w]


def test_the_page_of_its_own_has_the_table(finished: Lab) -> None:
    page = finished.path("experiments/tiny.md").read_text()
    assert "| fp16 (baseline)" in page and "q4_k_m" in page
    assert not finished.path("README.md").exists()
    assert "Nothing to be done" in finished.snakemake(*COMMAND).stderr
