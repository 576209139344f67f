"""A hub on the loopback: the routes that huggingface_hub uses, with faults to order.

``with Hub() as hub: hub.publish("owner/name", folder)``, then ``HF_ENDPOINT=hub.url``.
"""

import hashlib
import json
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = (".safetensors", ".gguf", ".npz")  # what a hub keeps in LFS
ERRORS = {  # status and X-Error-Code, as the real hub answers
    "gated": (403, "GatedRepo"),
    "no repository": (404, "RepoNotFound"),
    "no revision": (404, "RevisionNotFound"),
    "no file": (404, "EntryNotFound"),
    "bad token": (401, ""),
    "too many requests": (429, ""),
    "broken": (500, ""),
}


@dataclass
class Fault:
    """What goes wrong with a file's content; ``times`` counts down, None is always."""

    cut_after: int | None = None  # bytes of this answer, then the connection closes
    stall_after: int | None = None  # bytes of this answer, then silence
    trickle: float = 0.0  # seconds between the pieces
    content: bytes | None = None  # sent in place of the file's own
    redirect_to: str = ""  # another server that has the same files
    error: str = ""  # a key of ERRORS, on GET only
    ignore_range: bool = False
    times: int | None = None


@dataclass
class Sent:
    """What a client was sent of one file."""

    bytes: int = 0
    starts: list[int] = field(default_factory=list)  # first byte of each answer: 0, or a Range's


@dataclass
class File:
    """One published file."""

    content: bytes
    large: bool
    claimed: int = 0  # its size as the hub says it, where that is not so

    @cached_property
    def etag(self) -> str:
        if self.large:
            return hashlib.sha256(self.content).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(self.content) + self.content).hexdigest()


class Hub:
    """Published repositories on a port of 127.0.0.1, what is wrong with them, what was sent."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, File]] = {}
        self.cards: dict[str, dict[str, Any]] = {}
        self.gated: set[str] = set()  # repositories whose metadata is open and whose files are not
        self.faults: dict[str, Fault] = {}  # by file name
        self.error = ""  # a key of ERRORS: the answer to every request
        self.hangs = False  # accepts every request and never answers
        self.sent: dict[str, Sent] = defaultdict(Sent)
        self.requests: list[
            tuple[str, str, Mapping[str, str]]
        ] = []  # method, path, headers in lower case
        self.closing = threading.Event()
        hub = self

        class Handler(_Handler):
            def setup(self) -> None:
                self.hub = hub
                super().setup()

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> "Hub":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()  # wakes what hangs
        self.server.shutdown()
        self.server.server_close()

    def publish(
        self, repository: str, files: Path | dict[str, bytes], card: dict[str, Any] | None = None
    ) -> None:
        """The files of a folder, or of a mapping from name to content, as one repository.

        ``card`` is the metadata of its model card.
        """
        self.cards[repository] = card or {}
        if isinstance(files, Path):
            files = {f.name: f.read_bytes() for f in sorted(files.iterdir()) if f.is_file()}
        self.repositories[repository] = {
            name: File(content, name.endswith(LARGE)) for name, content in files.items()
        }

    def sha256(self, repository: str, name: str) -> str:
        return hashlib.sha256(self.repositories[repository][name].content).hexdigest()

    def fault(self, name: str) -> Fault:
        """The fault of a file's next answer; counts it down."""
        fault = self.faults.get(name, Fault())
        if fault.times == 0:
            return Fault()
        if fault.times is not None:
            fault.times -= 1
        return fault


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.asked = parse_qs(urlsplit(self.path).query)
        self.hub.requests.append(
            (self.command, path, {k.lower(): v for k, v in self.headers.items()})
        )
        if self.hub.hangs:
            self.hub.closing.wait(120)
            self.close_connection = True
        elif self.hub.error:
            self.fail(self.hub.error)
        elif path == "/api/models":
            self.answer_search()
        elif path.startswith("/api/models/"):
            self.answer_api(path.removeprefix("/api/models/").split("/"))
        else:
            self.answer_file(path.strip("/").split("/"))

    def answer_api(self, parts: list[str]) -> None:
        """``owner/name``, or more: ``/revision/<revision>``, ``/tree/<revision>``."""
        repository, kind = "/".join(parts[:2]), (parts[2:] or ["revision"])[0]
        files = self.find(repository, (parts[3:] or ["main"])[0])
        if files is None:
            return
        if kind == "tree":
            self.send_json([self.tree_entry(name, file) for name, file in files.items()])
        else:
            siblings = [self.sibling(name, file) for name, file in files.items()]
            about = {"cardData": self.hub.cards[repository], "gated": repository in self.hub.gated}
            self.send_json({"id": repository, "sha": COMMIT, "siblings": siblings} | about)

    def answer_search(self) -> None:
        """Repositories whose names hold a text, or those of an owner."""
        text = self.asked.get("search", [""])[0].lower()
        owner = self.asked.get("author", [""])[0]
        found = [name for name in self.hub.repositories if text in name.lower()]
        self.send_json([{"id": name} for name in found if name.startswith(owner)])

    def sibling(self, name: str, file: File) -> dict[str, Any]:
        """A file of a repository's own description; its size and checksum where they are asked."""
        if "blobs" not in self.asked:
            return {"rfilename": name}
        size = file.claimed or len(file.content)
        lfs = {"sha256": file.etag, "size": size, "pointerSize": 130}
        about = {"rfilename": name, "size": size, "blobId": file.etag[:40]}
        return about | ({"lfs": lfs} if file.large else {})

    def tree_entry(self, name: str, file: File) -> dict[str, Any]:
        size = len(file.content)
        entry = {"type": "file", "path": name, "size": size, "oid": file.etag[:40]}
        lfs = {"oid": file.etag, "size": size, "pointerSize": 130}
        return entry | ({"lfs": lfs} if file.large else {})

    def answer_file(self, parts: list[str]) -> None:
        """``owner/name/resolve/<revision>/<file>``."""
        if len(parts) < 5 or parts[2] != "resolve":
            return self.fail("no repository")
        name = "/".join(parts[4:])
        files = self.find("/".join(parts[:2]), parts[3])
        if files is None:
            return None
        if "/".join(parts[:2]) in self.hub.gated:
            return self.fail("gated")
        if name not in files:
            return self.fail("no file")
        file = files[name]
        if self.command == "HEAD":
            return self.send_head(200, file, file.claimed or len(file.content))
        fault = self.hub.fault(name)
        if fault.error:
            return self.fail(fault.error)
        if fault.redirect_to:
            location = {"Location": fault.redirect_to + self.path}
            return self.send_head(302, file, 0, location)
        return self.send_content(name, file, fault)

    def find(self, repository: str, revision: str) -> dict[str, File] | None:
        """The files of a revision; None after an error was answered."""
        if repository not in self.hub.repositories:
            self.fail("no repository")
        elif revision not in (COMMIT, "main"):
            self.fail("no revision")
        else:
            return self.hub.repositories[repository]
        return None

    def send_content(self, name: str, file: File, fault: Fault) -> None:
        content = file.content if fault.content is None else fault.content
        start, total, asked = 0, len(content), self.headers.get("Range")
        if asked and not fault.ignore_range:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start = int(first)
            if start >= total:
                return self.send_head(416, file, 0, {"Content-Range": f"bytes */{total}"})
            end = min(int(last) + 1, total) if last else total
            ranges = {"Content-Range": f"bytes {start}-{end - 1}/{total}"}
            self.send_head(206, file, end - start, ranges)
            content, total = content[:end], end
        else:
            self.send_head(200, file, total)
        sent = self.hub.sent[name]
        sent.starts.append(start)
        stop = min(total, start + min(fault.cut_after or total, fault.stall_after or total))
        piece = 1 << 20
        try:
            for at in range(start, stop, piece):
                part = content[at : min(stop, at + piece)]
                self.wfile.write(part)
                sent.bytes += len(part)
                time.sleep(fault.trickle)
            if fault.stall_after:
                self.hub.closing.wait(120)
        except OSError:  # the client went away
            pass
        self.close_connection = stop < total
        return None

    def send_head(
        self, status: int, file: File, length: int, more: dict[str, str] | None = None
    ) -> None:
        headers = {
            "Content-Length": str(length),
            "Accept-Ranges": "bytes",
            "X-Repo-Commit": COMMIT,
            "ETag": f'"{file.etag}"',
        }
        if file.large:
            headers |= {
                "X-Linked-Etag": f'"{file.etag}"',
                "X-Linked-Size": str(file.claimed or len(file.content)),
            }
        self.send(status, headers | (more or {}))

    def fail(self, error: str) -> None:
        status, code = ERRORS[error]
        headers = {"Content-Length": "0", "X-Repo-Commit": COMMIT}
        headers |= {"X-Error-Code": code} if code else {}
        if error == "bad token":
            headers["X-Error-Message"] = "Invalid credentials in Authorization header"
        self.send(status, headers)

    def send_json(self, value: Any) -> None:
        body = json.dumps(value).encode()
        self.send(200, {"Content-Type": "application/json", "Content-Length": str(len(body))})
        if self.command == "GET":
            self.wfile.write(body)

    def send(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
