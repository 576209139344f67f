"""A store as Ollama writes it on a disk: manifests by name, and their layers by checksum."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Store:
    """What OLLAMA_MODELS names."""

    folder: Path

    def add(self, name: str, layers: list[tuple[str, bytes]], root: str = "manifests") -> Path:
        """Keep layers under host/namespace/model/tag, by the end of their media types.

        Returns the path of the last layer's file.
        """
        kept = [self.blob(content) for _, content in layers]
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "config": {
                "mediaType": "application/vnd.docker.container.image.v1+json",
                "digest": self.blob(b"{}").name.replace("-", ":"),
                "size": 2,
            },
            "layers": [
                {
                    "mediaType": f"application/vnd.ollama.image.{kind}",
                    "digest": path.name.replace("-", ":"),
                    "size": len(content),
                }
                for (kind, content), path in zip(layers, kept, strict=True)
            ],
        }
        self.write(name, json.dumps(manifest).encode(), root)
        return kept[-1]

    def write(self, name: str, manifest: bytes, root: str = "manifests") -> None:
        path = self.folder / root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if root == "manifests":
            path.write_bytes(manifest)
        else:  # newer versions of Ollama keep it as a blob as well, and link to that
            path.symlink_to(self.blob(manifest))

    def blob(self, content: bytes) -> Path:
        path = self.folder / "blobs" / f"sha256-{hashlib.sha256(content).hexdigest()}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path
