"""Pins stand once, and other files agree with pyproject.toml; what make installs, and when."""

import os
import re
import shlex
import shutil
import subprocess
import tomllib
from itertools import chain
from pathlib import Path

import pytest
import yaml

from conftest import ROOT

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
DRAWING = {"altair", "Jinja2", "MarkupSafe", "vl-convert-python"}
COMPUTING = {"numpy", "pydantic", "scipy", "tabulate"}  # what the report's modules import besides
EVERY = {pin.split("==")[0] for pin in PROJECT["dependencies"]}
NOT_IN_CONDA = {
    "transformers": DRAWING | {"snakemake", "llama-cpp-python"},
    "llama.cpp": DRAWING | {"snakemake"},
    "more": DRAWING | {"snakemake"},
    "report": EVERY - DRAWING - COMPUTING,
}
EXTRAS = PROJECT["optional-dependencies"]
RUNTIMES = ("bitsandbytes", "mlx", "onnx", "openvino", "torchao")
IN_CONDA = {"more": [pin for name in RUNTIMES for pin in EXTRAS[name]]}


def normal(pins: list[str]) -> set[str]:
    """Pins as name==version with the name as the index spells it."""
    split = (pin.partition("==") for pin in pins)
    return {f"{re.sub('[-_.]+', '-', name).lower()}=={version}" for name, _, version in split}


def locked(file: str) -> list[str]:
    lines = (ROOT / "envs" / file).read_text().splitlines()
    return [line for line in lines if "==" in line]


@pytest.mark.parametrize(
    "file, wanted",
    [
        ("lock.txt", PROJECT["dependencies"]),
        *((f"lock-{name}.txt", EXTRAS[name]) for name in ("test", "slurm", *RUNTIMES)),
    ],
)
def test_lock_files_hold_the_pins(file: str, wanted: list[str]) -> None:
    assert normal(wanted) <= normal(locked(file))


@pytest.mark.parametrize("name", NOT_IN_CONDA)
def test_conda_files_hold_the_pins(name: str) -> None:
    environment = yaml.safe_load((ROOT / "envs" / f"{name}.yaml").read_text())
    pip = next(d["pip"] for d in environment["dependencies"] if isinstance(d, dict))
    pins = [p for p in PROJECT["dependencies"] if p.split("==")[0] not in NOT_IN_CONDA[name]]
    assert normal(pip) == normal(pins + IN_CONDA.get(name, []))


FLOORS = {"jinja2": (3, 1, 6), "torch": (2, 10), "transformers": (5, 5)}  # advisories below them


@pytest.mark.parametrize("name", FLOORS)
def test_the_lock_is_above_known_advisories(name: str) -> None:
    (pin,) = (p for p in normal(locked("lock.txt")) if p.startswith(f"{name}=="))
    assert tuple(map(int, pin.partition("==")[2].split("."))) >= FLOORS[name]


@pytest.mark.parametrize("name", ["peft", "kernels"])
def test_nothing_is_installed_that_would_fetch_code_for_a_model(name: str) -> None:
    assert not any(p.startswith(f"{name}==") for p in normal(locked("lock-test.txt")))
    assert not any(p.startswith(f"{name}==") for p in normal(locked("lock.txt")))


def test_every_direct_dependency_is_pinned() -> None:
    every = [*PROJECT["dependencies"], *chain(*PROJECT["optional-dependencies"].values())]
    every += PYPROJECT["build-system"]["requires"]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+(; platform_system == '\w+')?", pin) for pin in every)


# Stands for Python: makes an environment of itself, and says what pip would be told.
PYTHON = """#!/bin/sh
case "$*" in
*"-m venv"*) mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
*lock.txt*) echo "$CMAKE_ARGS" > told; exit "${FAIL:-0}" ;;
esac
"""


def install(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """``make .venv/installed`` in a copy, with a Python that installs nothing."""
    shutil.copytree(ROOT / "envs", folder / "envs")
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    python = folder / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    command = ["make", ".venv/installed", "PYTHON=./python"]
    return subprocess.run(
        command, cwd=folder, env=os.environ | environment, capture_output=True, text=True
    )


def test_what_the_user_tells_cmake_comes_last(tmp_path: Path) -> None:
    folder = tmp_path / "a folder"
    folder.mkdir()
    done = install(folder, CMAKE_ARGS="-DGGML_CUDA=on -DLLAVA_BUILD=ON")
    assert done.returncode == 0, done.stderr
    *ours, cuda, llava = shlex.split((folder / "told").read_text())
    assert (cuda, llava) == ("-DGGML_CUDA=on", "-DLLAVA_BUILD=ON")
    assert "-DLLAVA_BUILD=OFF" in ours
    assert Path(ours[-1].partition("=")[2]).is_file()
    assert (folder / ".venv/installed").exists()


def test_an_environment_that_failed_does_not_count_as_installed(tmp_path: Path) -> None:
    done = install(tmp_path, FAIL="1")
    assert done.returncode != 0
    assert "Error 1" in done.stderr
    assert not (tmp_path / ".venv/installed").exists()
