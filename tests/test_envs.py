"""Pins stand once: the lock files and the conda files agree with pyproject.toml."""

import re
import tomllib

import pytest
import yaml

from conftest import ROOT

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
NOT_IN_CONDA = {
    "transformers": {"snakemake", "llama-cpp-python"},
    "llama.cpp": {"snakemake"},
}


def normal(pins: list[str]) -> set[str]:
    """Pins as name==version with the name as the index spells it."""
    split = (pin.split("==") for pin in pins)
    return {f"{re.sub('[-_.]+', '-', name).lower()}=={version}" for name, version in split}


@pytest.mark.parametrize(
    "file, wanted",
    [
        ("lock.txt", PROJECT["dependencies"]),
        ("lock-test.txt", PROJECT["optional-dependencies"]["test"]),
    ],
)
def test_lock_files_hold_the_pins(file: str, wanted: list[str]) -> None:
    lines = (ROOT / "envs" / file).read_text().splitlines()
    locked = [line for line in lines if "==" in line]
    assert normal(wanted) <= normal(locked)


@pytest.mark.parametrize("name", NOT_IN_CONDA)
def test_conda_files_hold_the_pins(name: str) -> None:
    environment = yaml.safe_load((ROOT / "envs" / f"{name}.yaml").read_text())
    pip = next(d["pip"] for d in environment["dependencies"] if isinstance(d, dict))
    pins = [p for p in PROJECT["dependencies"] if p.split("==")[0] not in NOT_IN_CONDA[name]]
    assert normal(pip) == normal(pins)


def test_every_direct_dependency_is_pinned() -> None:
    every = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["test"]
    every += PYPROJECT["build-system"]["requires"]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", pin) for pin in every)
