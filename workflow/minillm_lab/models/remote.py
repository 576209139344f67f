"""What the hub tells of a repository before anything is downloaded: its files, their headers."""

import difflib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from minillm_lab.header import Arrays, Header, parse_header
from minillm_lab.jobs.errors import LabError
from minillm_lab.models.fetch import hub_errors

FIRST = 1 << 16  # bytes of the first range of a file, and after each jump
LARGEST = 1 << 23  # bytes of a range; what is read in one piece is asked for in ever larger ones
MOST_TEXT = 1 << 26  # bytes of a file that is read as a whole
NEAR = 3  # names offered in place of a misspelt one


@dataclass(frozen=True)
class File:
    """A file of a source: its path there, bytes, and checksum where the source tells it."""

    path: str
    bytes: int
    sha256: str | None = None
    repository: str = ""  # the repository of the hub that it is in; empty on this disk

    @property
    def name(self) -> str:
        """Its path with its repository."""
        return f"{self.repository}/{self.path}" if self.repository else self.path


@dataclass(frozen=True)
class Repository:
    """A repository at one commit."""

    name: str
    commit: str
    files: list[File]
    base: str | None  # the repository that its card names as the one it was quantized from


def read_repository(name: str) -> Repository:
    """A repository of the hub as its main branch is now. Raises LabError with near names."""
    from huggingface_hub import HfApi, constants, errors

    try:
        with hub_errors(name, "main"):
            info = HfApi().model_info(
                name, timeout=constants.HF_HUB_ETAG_TIMEOUT, files_metadata=True
            )
    except LabError as error:
        missing = isinstance(error.__cause__, errors.RepositoryNotFoundError)
        gated = isinstance(error.__cause__, errors.GatedRepoError)
        if missing and not gated and (near := near_names(name)):
            raise LabError(f"{error}; near it: {', '.join(near)}") from error.__cause__
        raise
    files = [
        File(file.rfilename, file.size or 0, checksum(file.lfs.sha256) if file.lfs else None, name)
        for file in info.siblings or []
    ]
    said = getattr(info.card_data, "base_model", None)
    bases = [said] if isinstance(said, str) else said if isinstance(said, list) else []
    quantized = getattr(info.card_data, "base_model_relation", None) in (None, "quantized")
    base = bases[0] if len(bases) == 1 and isinstance(bases[0], str) and quantized else None
    if not info.sha:
        raise LabError(
            f"{name}: the hub does not say which commit this is, so its files cannot be pinned"
        )
    return Repository(name, info.sha, files, base)


def checksum(told: object) -> str | None:
    """A SHA-256 as a hub tells it; None where it is none."""
    return told if isinstance(told, str) and re.fullmatch("[0-9a-f]{64}", told) else None


def near_names(name: str) -> list[str]:
    """Repositories whose names are close to one, by the hub's search; none where it fails."""
    from huggingface_hub import constants
    from huggingface_hub.utils import (  # type: ignore[attr-defined]
        build_hf_headers,
        get_session,
    )

    owner, _, own = name.partition("/")
    found: set[str] = set()
    for asked in ({"search": own}, {"author": owner}):
        try:
            answer = get_session().get(
                f"{constants.ENDPOINT}/api/models",
                params={**asked, "limit": 100},
                headers=build_hf_headers(),
                timeout=constants.HF_HUB_ETAG_TIMEOUT,
            )
            found |= {str(entry["id"]) for entry in answer.json()}
        except Exception:  # a hint alone: without it the error itself is still said
            continue
    by_lower = {one.lower(): one for one in sorted(found)}
    close = difflib.get_close_matches(name.lower(), by_lower, NEAR, 0.6)
    return [by_lower[one] for one in close]


class Remote:
    """A file on the hub as bytes: what is asked for comes in ranges."""

    def __init__(self, repository: Repository, file: File) -> None:
        self.repository, self.file = repository, file
        self.start, self.window, self.step = 0, b"", FIRST

    def __len__(self) -> int:
        return self.file.bytes

    def __getitem__(self, place: slice) -> bytes:
        start, stop, _ = place.indices(len(self))
        end = self.start + len(self.window)
        if start < self.start or stop > end:
            kept = self.window[start - self.start :] if self.start <= start < end else b""
            self.step = min(2 * self.step, LARGEST) if start <= end and self.window else FIRST
            at = start + len(kept)
            upto = min(len(self), max(stop, at + self.step))
            self.start, self.window = start, kept + self.ranged(at, upto)
        return self.window[start - self.start : stop - self.start]

    def ranged(self, start: int, stop: int) -> bytes:
        """The bytes of one range; a server that ignores ranges is not read to its end."""
        from huggingface_hub import constants, hf_hub_url
        from huggingface_hub.utils import (  # type: ignore[attr-defined]
            build_hf_headers,
            get_session,
            hf_raise_for_status,
        )

        if stop <= start:
            return b""
        name, path = self.repository.name, self.file.path
        url = hf_hub_url(name, path, revision=self.repository.commit)
        headers = build_hf_headers() | {"Range": f"bytes={start}-{stop - 1}"}
        headers["Accept-Encoding"] = "identity"
        timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
        with (
            hub_errors(name, self.repository.commit, path),
            get_session().stream("GET", url, headers=headers, timeout=timeout) as answer,
        ):
            hf_raise_for_status(answer)
            if answer.status_code != 206 and start:
                raise LabError(f"{name}/{path}: the hub sends no parts of a file")
            read = b""
            for piece in answer.iter_bytes():
                read += piece
                if len(read) >= stop - start:
                    break
        if len(read) < stop - start:
            raise LabError(
                f"{name}/{path}: the hub sent {len(read)} of {stop - start} bytes; try again"
            )
        return read[: stop - start]


def read_headers(repository: Repository, files: list[File]) -> Iterator[Header]:
    """The headers of GGUF files, in order.

    A vocabulary fills most of a header. It is read once: in the next files of the same repository
    it is passed over, and read after all where that leads nowhere.
    """
    arrays: Arrays = {}
    for file in files:
        try:
            yield parse_header(Remote(repository, file), file.name, arrays)
        except LabError as error:
            if error.__cause__ is not None:  # the hub's, not the header's
                raise
            arrays = {}
            yield parse_header(Remote(repository, file), file.name, arrays)


def read_json(repository: Repository, path: str) -> dict[str, Any]:
    """A small file of a repository that holds a JSON object. Raises LabError if it is none."""
    file = next((file for file in repository.files if file.path == path), None)
    if file is None:
        raise LabError(f"{repository.name} has no {path}")
    content = Remote(repository, file)[: min(file.bytes, MOST_TEXT)]
    return as_object(content, f"{repository.name}/{path}")


def as_object(content: bytes, name: str) -> dict[str, Any]:
    """A JSON object. Raises LabError if the content is none."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise LabError(f"{name}: not a JSON object")
    return found
