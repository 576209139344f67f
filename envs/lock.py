"""Resolve the pins of pyproject.toml into envs/lock.txt, and its extras into envs/lock-<name>.txt.

Those of extras hold what is needed besides the first.
"""

import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

HERE = Path(__file__).parent
project = tomllib.loads((HERE.parent / "pyproject.toml").read_text())["project"]


def resolved(requirements: list[str], constraints: list[str]) -> list[str]:
    """``name==version`` of everything that the requirements install, sorted."""
    with tempfile.TemporaryDirectory() as folder:
        python = f"{folder}/bin/python"
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        held = Path(folder, "constraints.txt")
        held.write_text("\n".join(constraints))
        pip = [python, "-m", "pip", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", "--quiet", "-c", held, *requirements], check=True)
        listed = subprocess.run([*pip, "list", "--format=freeze"], capture_output=True, text=True)
    lines = [line.partition("+")[0] for line in listed.stdout.splitlines()]
    kept = [line for line in lines if not line.startswith(("pip==", "setuptools=="))]
    return sorted(kept, key=str.lower)


run = resolved(project["dependencies"], [])
(HERE / "lock.txt").write_text("# Made by `make lock`.\n" + "\n".join(run) + "\n")
for name in project["optional-dependencies"].keys() - {"audit"}:
    both = resolved(project["dependencies"] + project["optional-dependencies"][name], run)
    named = [pin for pin in project["optional-dependencies"][name] if ";" in pin]  # by platform
    plain = {pin.partition(";")[0] for pin in named}
    extra = sorted({*both} - {*run} - plain | {*named}, key=str.lower)
    (HERE / f"lock-{name}.txt").write_text("# Made by `make lock`.\n" + "\n".join(extra) + "\n")
