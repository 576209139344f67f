"""What a model file claims is held against the file before a runtime sees it."""

import json
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import broken_gguf
import pytest

from conftest import ROOT
from minillm_lab.experiment.sources import SAFETENSORS_FILES, Model
from minillm_lab.header import LONGEST_TEMPLATE, read_gguf, read_header
from minillm_lab.jobs.errors import LabError
from minillm_lab.models.fetch import fetch_gguf, fetch_safetensors
from tiny_model import as_gguf, as_safetensors, split_gguf, write_tiny_gguf

COUNTS = 8  # the number of tensors, then that of keys


def key(name: str, kind: int, value: bytes) -> bytes:
    return struct.pack("<Q", len(name)) + name.encode() + struct.pack("<I", kind) + value


def with_keys(*pairs: bytes) -> bytes:
    """A whole file with key-value pairs put before its one tensor."""
    whole = as_gguf(b"x" * 64)
    tensor = whole[24 : 24 + 8 + 7 + 4 + 8 + 4 + 8]
    header = struct.pack("<4sIQQ", b"GGUF", 3, 1, len(pairs)) + b"".join(pairs) + tensor
    return header + bytes(-len(header) % 32) + b"x" * 64


def with_number(place: int, number: int, form: str = "<Q") -> bytes:
    whole = bytearray(as_gguf(b"x" * 64))
    struct.pack_into(form, whole, place, number)
    return bytes(whole)


def two_tensors(second: int, first_name: bytes = b"a") -> bytes:
    entries = [(first_name, 0), (b"b", second)]
    header = struct.pack("<4sIQQ", b"GGUF", 3, 2, 0)
    for name, offset in entries:
        header += struct.pack("<QsIQIQ", 1, name, 1, 64, 24, offset)
    return header + bytes(-len(header) % 32) + b"x" * 128


string = struct.pack("<Q", 1) + b"x"
HOSTILE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "cannot mmap an empty file"),
    "the magic alone": (b"GGUF", "cut short"),
    "zeroed": (bytes(5000), "does not begin with GGUF"),
    "another version": (with_number(4, 1, "<I"), "its version is 1"),
    "big-endian": (with_number(4, 3, ">I"), "its version is 50331648"),
    "no tensors": (with_number(COUNTS, 0), "no tensors"),
    "absurdly many tensors": (with_number(COUNTS, 2**63), "9223372036854775808 tensors"),
    "absurdly many keys": (with_number(COUNTS + 8, 2**40), "1099511627776 keys"),
    "a huge name": (with_number(24, 2**62), "bytes of a tensor's name"),
    "a name that is not text": (as_gguf(b"x").replace(b"content", b"\xff" * 7), "not UTF-8"),
    "no dimensions": (with_number(39, 0, "<I"), "0 dimensions"),
    "a million dimensions": (with_number(39, 10**6, "<I"), "1000000 dimensions"),
    "an empty shape": (with_number(43, 0), "cannot be of the shape (0,)"),
    "more values than there can be": (with_number(43, 2**63), "cannot be of the shape"),
    "more values than the file has": (with_number(43, 2**40), "cut short"),
    "an unknown tensor type": (with_number(51, 4, "<I"), "unknown type 4"),
    "rows that no block divides": (with_number(51, 12, "<I"), "cannot be of the shape (64,)"),
    "an offset out of the file": (with_number(55, 2**40), "lies at 1099511627776"),
    "tensors that overlap": (two_tensors(32), "lies at 32, not at 64"),
    "tensors of one name": (two_tensors(64, b"b"), "one name"),
    "a huge string": (with_keys(key("k", 8, struct.pack("<Q", 2**60))), "bytes of 'k'"),
    "an array of arrays": (with_keys(key("k", 9, struct.pack("<IQ", 9, 1))), "array of arrays"),
    "a huge array": (with_keys(key("k", 9, struct.pack("<IQ", 0, 2**50))), "elements of 'k'"),
    "many huge arrays": (
        with_keys(*(key(f"k{i}", 9, struct.pack("<IQ", 0, 2**21) + bytes(2**21)) for i in "abc")),
        "elements of 'kc'",
    ),
    "strings beyond the file": (with_keys(key("k", 9, struct.pack("<IQ", 8, 9))), "cut short"),
    "an unknown value type": (with_keys(key("k", 13, b"")), "unknown type 13"),
    "a key twice": (with_keys(key("k", 8, string), key("k", 8, string)), "'k' stands twice"),
    "no alignment": (with_keys(key("general.alignment", 4, bytes(4))), "power of two"),
    "an endless template": (
        with_keys(
            key("tokenizer.chat_template", 8, struct.pack("<Q", 2**20) + b"x" * 2**20),
        ),
        f"{LONGEST_TEMPLATE} at most",
    ),
}  # fmt: skip


@pytest.mark.parametrize("content, said", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_lie_is_refused_by_name_and_nothing_is_fetched(
    content: bytes, said: str, tmp_path: Path
) -> None:
    file = tmp_path / "hostile.gguf"
    file.write_bytes(content)
    with pytest.raises(LabError, match=r"hostile\.gguf: not a GGUF file") as error:
        fetch_gguf(Model(path=str(file)), file.name, tmp_path / "models" / file.name)
    assert said in str(error.value) and "\n" not in str(error.value)
    assert list((tmp_path / "models").iterdir()) == []


def test_what_is_whole_passes(tmp_path: Path, tiny_gguf: Path) -> None:
    file = tmp_path / "whole.gguf"
    pairs = [key("a", 9, struct.pack("<IQ", 8, 2) + 2 * string), key("b", 7, b"\x01")]
    file.write_bytes(with_keys(*pairs, key("general.alignment", 4, struct.pack("<I", 32))))
    assert [(t.name, t.type, t.shape, t.bytes) for t in read_header(file).tensors] == [
        ("content", "I8", (64,), 64)
    ]
    assert len(read_header(tiny_gguf).tensors) == 27


def test_parts_together_are_the_whole_and_one_alone_is_not(tmp_path: Path, tiny_gguf: Path) -> None:
    parts = split_gguf(tiny_gguf, tmp_path / "tiny.split", "tiny")
    whole, joined = read_header(tiny_gguf), read_gguf(tmp_path / "tiny.split")
    assert [(t.name, t.type, t.shape) for t in joined.tensors] == [
        (t.name, t.type, t.shape) for t in whole.tensors
    ]
    assert (joined.type, joined.context) == (whole.type, whole.context) == ("F16", 512)
    with pytest.raises(LabError, match=r"it is part 2 of a GGUF split in 3; name all its parts"):
        read_header(parts[1])


def test_parts_of_different_splits_are_no_model(tmp_path: Path, tiny_gguf: Path) -> None:
    write_tiny_gguf(tmp_path / "deep.gguf", layers=3)
    split_gguf(tmp_path / "deep.gguf", tmp_path / "other", "tiny")
    _, second, third = split_gguf(tiny_gguf, tmp_path / "tiny.split", "tiny")
    content = second.read_bytes()

    def refused() -> str:
        with pytest.raises(LabError, match=r"tiny\.split: [^\n]*$") as error:
            read_gguf(tmp_path / "tiny.split")
        return str(error.value)

    second.write_bytes((tmp_path / "other" / second.name).read_bytes())
    assert "its parts are of different splits" in refused()
    second.write_bytes(third.read_bytes())
    assert "file 2 of 3 says that it is part 3 of 3" in refused()
    second.write_bytes(content)
    third.unlink()
    assert "file 1 of 2 says that it is part 1 of 3" in refused()


def test_whatever_is_done_to_a_file_it_passes_or_is_refused_in_one_line(
    tiny_gguf: Path, tmp_path: Path
) -> None:
    whole, header = tiny_gguf.read_bytes(), broken_gguf.header_bytes(tiny_gguf)
    file = tmp_path / "mutated.gguf"
    outcomes = set()
    for seed in range(300):
        file.write_bytes(broken_gguf.mutated(whole, header, seed))
        outcomes.add(broken_gguf.inspect(file))
    assert outcomes == {"passed", "refused"}


@pytest.mark.parametrize(
    "seed, outcome",
    [(7, "measured"), (1, "refused by llama.cpp"), (109, "crashed, and said so")],
)
def test_what_passes_is_loaded_or_refused_in_one_line(
    seed: int, outcome: str, tiny_gguf: Path, tmp_path: Path
) -> None:
    file = tmp_path / "mutated.gguf"
    whole, header = tiny_gguf.read_bytes(), broken_gguf.header_bytes(tiny_gguf)
    file.write_bytes(broken_gguf.mutated_value(whole, header, seed))
    assert broken_gguf.inspect(file) == "passed"
    assert broken_gguf.load(file) == outcome


def lying(change: Callable[[dict[str, object]], object]) -> bytes:
    header = {"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}
    change(header["a"])
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(16)


LIES = {
    "a header longer than the file": struct.pack("<Q", 2**40) + b"{}",
    "a header that is no JSON": struct.pack("<Q", 4) + b"{{{{" + bytes(16),
    "a type that its bytes are not": lying(lambda a: a.update(dtype="F64")),
    "a type that there is not": lying(lambda a: a.update(dtype="OBJECT")),
    "a shape that does not fit": lying(lambda a: a.update(shape=[2**60, 16])),
    "offsets out of the file": lying(lambda a: a.update(data_offsets=[0, 1600], shape=[400])),
    "offsets turned round": lying(lambda a: a.update(data_offsets=[16, 0])),
    "cut short": as_safetensors(b"x" * 100)[:-1],
    "a pickle by that name": b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00.",
}


def refused_folder(folder: Path, output: Path) -> str:
    with pytest.raises(LabError) as error:
        fetch_safetensors(Model(path=str(folder)), output, SAFETENSORS_FILES)
    assert not output.exists() and "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("content", LIES.values(), ids=LIES.keys())
def test_safetensors_that_lie_are_refused_by_name(content: bytes, tmp_path: Path) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(content)
    said = refused_folder(folder, tmp_path / "out")
    assert f"{folder}: model.safetensors is not a safetensors file" in said


@pytest.mark.parametrize(
    "index, said",
    [
        ({"weight_map": {"a": "part-1.safetensors", "b": "part-2.safetensors"}}, "part-2"),
        ({"weight_map": {"a": "../../other.safetensors"}}, "../../other"),
        ({"weight_map": [1]}, "not an index"),
        ([], "not an index"),
    ],
)
def test_a_part_that_is_missing_is_named(index: object, said: str, tmp_path: Path) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "part-1.safetensors").write_bytes(as_safetensors(b"x"))
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert said in refused_folder(folder, tmp_path / "out")


def test_pickles_alone_are_no_weights(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    assert "holds no *.safetensors" in refused_folder(tmp_path, tmp_path / "out")


def test_what_converts_mistrals_tokenizers_is_not_loaded_and_can_be(tiny_gguf: Path) -> None:
    """It would cost each job that reads a header 0.4 s; Transformers loads it where it needs it."""
    program = f"""
import sys
from pathlib import Path
from minillm_lab.header import read_gguf
assert read_gguf(Path({str(tiny_gguf)!r})).type == "F16"
assert "gguf.vocab" in sys.modules and "mistral_common" not in sys.modules
import mistral_common
"""
    env = {"PYTHONPATH": str(ROOT / "workflow")}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
