"""The console script: its entry point, its errors in one line, the files shipped with it."""

import fnmatch
import shlex
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from builders import compared, made_up
from conftest import ROOT
from minillm_lab import __version__
from minillm_lab.__main__ import COMMANDS, command_line
from minillm_lab.records import write_record

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    module, _, function = PROJECT["project"]["scripts"]["minillm-lab"].partition(":")
    monkeypatch.setattr(sys, "argv", ["minillm-lab", *arguments])
    getattr(import_module(module), function)()


def test_one_version_everywhere(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="0"):
        run(monkeypatch, "--version")
    assert capsys.readouterr().out == f"minillm-lab {__version__}\n"
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert PROJECT["tool"]["setuptools"]["dynamic"]["version"]["attr"] == "minillm_lab.__version__"


@pytest.fixture
def results(tmp_path: Path) -> str:
    comparison = compared(made_up("f16"), made_up("q8_0"))
    write_record(tmp_path / "results/comparison.json", comparison)
    return str(tmp_path / "results")


@pytest.mark.parametrize(
    "arguments, said",
    [
        (("pick", "--results", "{}"), "Take `f16`"),
        (("export", "--format", "model-card", "--results", "{}"), "| Bits per weight"),
        (("export", "--format", "results", "--results", "{}"), '"format": "minillm-lab results"'),
        (("diff", "{}", "{}"), "**No difference**"),
    ],
)
def test_each_command_prints_its_answer(
    arguments: tuple[str, ...],
    said: str,
    results: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run(monkeypatch, *(argument.format(results) for argument in arguments))
    assert said in capsys.readouterr().out


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_examples_that_are_commands(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="0"):
        run(monkeypatch, name, "--help")
    examples = capsys.readouterr().out.partition("examples:\n")[2].splitlines()
    assert len(examples) > 1
    for example in examples:
        program, *arguments = shlex.split(example.partition(">")[0])
        assert program == "minillm-lab" and arguments[0] == name
        assert command_line().parse_args(arguments).main


@pytest.mark.parametrize(
    "arguments, error",
    [
        (("pick", "--results", "/nowhere"), "no comparison.json in it"),
        (("diff", "/nowhere/a.json", "/nowhere/b.json"), "No such file"),
        (("estimate", "q9", "--prompt-tokens", "9", "--answer-tokens", "9"), "choose one of `f16`"),
    ],
)
def test_errors_are_one_line(
    arguments: tuple[str, ...], error: str, results: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(results).parent)
    with pytest.raises(SystemExit) as caught:
        run(monkeypatch, *arguments)
    assert str(caught.value).startswith("error: ") and error in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_install_holds_every_file_of_the_package() -> None:
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["minillm_lab"]
    package = ROOT / "workflow/minillm_lab"
    data = [f for f in package.rglob("*") if f.is_file() and f.suffix not in (".py", ".pyc")]
    assert data
    for file in data:
        name = file.relative_to(package).as_posix()
        assert any(fnmatch.fnmatch(name, pattern) for pattern in patterns), name
