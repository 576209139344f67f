"""What the tests share: a tiny real model, a folder in which the real snakemake runs."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
import yaml

from minillm_lab.runtimes import runtime_versions
from tiny_model import write_tiny_gguf

ROOT = Path(__file__).parent.parent
pytest_plugins = ["quality_lab"]
OF_LIBRARIES = {  # tests that need what a plain run never installs
    "bitsandbytes": ["*/test_pack*.py"],
    "torchao": ["*/test_pack*.py"],
    "mlx": ["*/test_mlx.py", "*/test_packed.py"],
    "openvino": ["*/test*_openvino.py"],
    "onnx": ["*/test*_onnx.py"],
}


def installed(library: str) -> bool:
    try:
        return bool(runtime_versions(library))
    except PackageNotFoundError:
        return False


# Thousands of processes start here: each would compile the lab anew where Python may keep nothing.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

MISSING = [library for library in OF_LIBRARIES if not installed(library)]
collect_ignore_glob = [tests for library in MISSING for tests in OF_LIBRARIES[library]]


def pytest_report_header() -> str:
    more = f'; not tested: make install RUNTIMES="{" ".join(MISSING)}"' if MISSING else ""
    return f"runtimes not installed: {', '.join(MISSING) or 'none'}{more}"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="tests that take minutes, at full length")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first, so that no core is idle at the end."""
    items.sort(key=lambda item: item.path.parent.name not in ("cluster", "workflow"))


SHORT = {  # lines of an experiment by ``new``, and shorter ones
    "generate: 80": "generate: 8\ntrial_seconds: 0.3\ndepths: [16]",
    "context: 1024": "context: 512",
    "threads: auto": "threads: 1",
    "trials: 6": "trials: 1",
    "rounds: 2": "rounds: 1",
    "warmups: 1": "warmups: 0",
}


@dataclass
class Lab:
    """A copy of the workflow in a folder of its own, and the real snakemake in it."""

    folder: Path
    config: dict[str, Any]
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        ignore = shutil.ignore_patterns("*.pyc.*")  # half written; whole ones save seconds
        shutil.copytree(ROOT / "workflow", self.folder / "workflow", ignore=ignore)
        shutil.copytree(ROOT / "envs", self.folder / "envs", ignore=ignore)
        shutil.copy(ROOT / "Snakefile", self.folder)
        (self.folder / "profiles").symlink_to("workflow/profiles")
        self.write_config()

    def write_config(self) -> None:
        (self.folder / "config.yaml").write_text(yaml.safe_dump(self.config, allow_unicode=True))

    def path(self, name: str) -> Path:
        return self.folder / name

    def json(self, name: str) -> Any:
        return json.loads(self.path(name).read_text())

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "snakemake", *arguments]

    def env(self) -> dict[str, str]:
        return {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | self.environment

    def snakemake(self, *arguments: str, ok: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env=self.env(),
            capture_output=True,
            text=True,
            timeout=900,
        )
        assert (done.returncode == 0) == ok, done.stdout[-4000:] + done.stderr[-8000:]
        return done

    def run(self, *targets: str) -> subprocess.CompletedProcess[str]:
        return self.snakemake("--cores", "1", *targets)

    def program(self, *arguments: str) -> str:
        """What ``minillm-lab`` prints."""
        done = subprocess.run(
            [sys.executable, "-m", "minillm_lab", *arguments],
            cwd=self.folder,
            env=self.env() | {"PYTHONPATH": str(self.path("workflow"))},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def shorten(self, experiment: str, quality: str) -> None:
        """Edit what ``minillm-lab new`` wrote, as a person would who wants to see a table soon.

        ``quality`` are the lines in place of its chunks.
        """
        path = self.path(f"experiments/{experiment}.yaml")
        text = path.read_text()
        for written, shorter in (SHORT | {"  chunks: 10": quality}).items():
            text, times = re.subn(rf"^{written}\b.*", shorter, text, flags=re.MULTILINE)
            assert times == 1
        path.write_text(text)

    def planned(self, *arguments: str) -> dict[str, int]:
        """The jobs that a real dry run lists, by rule; ``all`` is left out."""
        output = self.snakemake("-n", *arguments, "--quiet", "host").stdout
        rules = (line.split()[1].rstrip(":") for line in output.splitlines() if is_job(line))
        return {rule: n for rule, n in Counter(rules).items() if rule != "all"}


def is_job(line: str) -> bool:
    return line.startswith(("rule ", "localrule ")) and line.endswith(":")


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An F16 GGUF of the Qwen2 architecture: two layers, 300 tokens, random weights."""
    path = tmp_path_factory.mktemp("tiny") / "tiny.F16.gguf"
    write_tiny_gguf(path)
    return path


@pytest.fixture(scope="session")
def tiny_safetensors(tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model as a folder of safetensors with its tokenizer."""
    from minillm_lab.models.safetensors import write_safetensors

    folder = tmp_path_factory.mktemp("tiny-safetensors") / "tiny"
    write_safetensors(tiny_gguf, folder)
    return folder


def tiny_config(path: Path | None = None, **changes: Any) -> dict[str, Any]:
    """An experiment on a tiny model: seconds rather than minutes."""
    return {
        "model": "tiny",
        "models": {"tiny": {"path": str(path)}},
        "variants": {
            "f16": {"runtime": "llama.cpp", "quantization": "F16"},
            "q4_k_m": {"runtime": "llama.cpp", "quantization": "Q4_K_M"},
        },
        "baseline": "f16",
        "prompt": "Why?",
        "generate": 8,
        "threads": 1,  # tests run beside each other, and llama.cpp's threads wait by spinning
        "context": 128,
        "rounds": 2,
        "trials": 2,
        "trial_seconds": 0.3,
        "repetitions": 2,
        "warmups": 1,
        "depths": [16],
        "quality": None,
        "readme": "README.md",
    } | changes


SMOLLM2 = yaml.safe_load((ROOT / "config.yaml").read_text())


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """Three variants of the default experiment, their quality not measured; not yet run.

    Its importance matrix is of a tenth of the lab's own text, which takes a tenth of the time.
    """
    variants = {name: SMOLLM2["variants"][name] for name in ("fp16", "f16", "q4_k_m")}
    text = tmp_path_factory.mktemp("text") / "short.txt"
    text.write_text((ROOT / "workflow/minillm_lab/models/calibration.txt").read_text()[:6750])
    variants["q4_k_m"] = variants["q4_k_m"] | {"imatrix": str(text)}
    short = {"rounds": 1, "trials": 1, "trial_seconds": 0.3, "repetitions": 1, "warmups": 0}
    short |= {"generate": 32, "depths": [128], "threads": 1, "quality": None, "variants": variants}
    lab = Lab(tmp_path_factory.mktemp("smollm2") / "lab", SMOLLM2 | short)
    shutil.copy(ROOT / "README.md", lab.folder)
    return lab
