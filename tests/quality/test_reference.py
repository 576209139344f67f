import io
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minillm_lab.jobs.errors import LabError
from minillm_lab.quality.reference import Reference
from minillm_lab.quality.text import EvaluationText


def read_all(path: Path) -> None:
    with Reference(path) as opened:
        for number in range(len(opened.facts.text.chunks)):
            opened.piece(number)


def npy(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=True)
    return buffer.getvalue()


def rewritten(path: Path, member: str, data: bytes | None, compress: int = 0) -> None:
    """The archive with one member replaced, or left out."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    del members[member]
    with zipfile.ZipFile(path, "w", compress) as archive:
        for name, content in (members | ({member: data} if data is not None else {})).items():
            archive.writestr(name, content)


def changed(path: Path, member: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    with np.load(path) as archive:
        values = archive[member].copy()
    rewritten(path, f"{member}.npy", npy(change(values)))


def claims(shape: str) -> bytes:
    """An .npy header that claims a shape its data does not have."""
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()


def edited(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """The archive with its facts changed."""
    with np.load(path) as archive:
        facts = json.loads(archive["facts"].tobytes())
    change(facts)
    rewritten(path, "facts.npy", npy(np.frombuffer(json.dumps(facts).encode(), np.uint8)))


HOSTILE: dict[str, Callable[[Path], object]] = {
    "cut short": lambda p: p.write_bytes(p.read_bytes()[:-500]),
    "empty": lambda p: p.write_bytes(b""),
    "text": lambda p: p.write_text("hello"),
    "member missing": lambda p: rewritten(p, "top.1.npy", None),
    "facts missing": lambda p: rewritten(p, "facts.npy", None),
    "facts not JSON": lambda p: rewritten(p, "facts.npy", npy(np.zeros(9, np.uint8))),
    "pickle": lambda p: rewritten(p, "top.1.npy", npy(np.array([{}], object))),
    "compressed": lambda p: rewritten(p, "top.1.npy", b"0" * 9999, zipfile.ZIP_DEFLATED),
    "endless": lambda p: rewritten(p, "top.1.npy", claims("(99999999999999,)")),
    "too large": lambda p: rewritten(p, "surprise.0.npy", npy(np.zeros(1 << 20, np.float32))),
    "other type": lambda p: changed(p, "top.0", lambda x: x.astype(np.float64)),
    "other shape": lambda p: changed(p, "top_ids.0", lambda x: x[:, 1:]),
    "not finite": lambda p: changed(p, "tail.0", lambda x: x * np.nan),
    "no such token": lambda p: changed(p, "top_ids.0", lambda x: x + np.uint16(300)),
    "no probability": lambda p: changed(p, "top.0", lambda x: x + np.float32(1)),
    "reply missing": lambda p: edited(p, lambda f: f["replies"].pop()),
    "reply of no token": lambda p: edited(p, lambda f: f["replies"][0].__setitem__(0, 1 << 20)),
    "bytes of another text": lambda p: edited(p, lambda f: f["text"]["bytes"][0].pop()),
    "endless prompt": lambda p: edited(p, lambda f: f["text"]["prompts"][0].extend([1] * 5000)),
    "wrong mass": lambda p: changed(p, "tail_mass.0", lambda x: x + np.float32(0.5)),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_broken_reference_is_refused_in_one_line(
    name: str, reference: Path, tmp_path: Path
) -> None:
    path = tmp_path / "reference.npz"
    shutil.copy(reference, path)
    HOSTILE[name](path)
    with pytest.raises(LabError) as caught:
        read_all(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_it_says_what_it_was_made_of(
    reference: Path, text: EvaluationText, tiny_safetensors: Path
) -> None:
    from minillm_lab.jobs.files import sha256_of

    read_all(reference)
    with Reference(reference) as opened:
        facts = opened.facts
    assert facts.text == text
    weights = tiny_safetensors / "model.safetensors"
    assert facts.weights == {"model.safetensors": sha256_of(weights)}


def test_it_stays_below_ten_kilobytes_a_token(reference: Path) -> None:
    from minillm_lab.quality.divergence import TAIL, TOP

    id_bytes, float_bytes = 4, 4  # the largest vocabularies
    assert (TOP + TAIL) * (id_bytes + float_bytes) + 100 < 10_000
