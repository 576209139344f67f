"""Broken and hostile GGUF files: mutations of a whole one, each from its own seed.

The suite inspects some hundred of them, ``benchmarks/fuzz.py`` thousands.
"""

import json
import os
import random
import struct
import subprocess
import sys
from pathlib import Path

from minillm_lab.jobs.errors import LabError
from minillm_lab.models.facts import facts_of
from tiny_model import PROMPT

ROOT = Path(__file__).parents[2]
EDGES = [0, 1, 2, 3, 8, 9, 31, 255, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**62, 2**63 - 1, 2**63]
EDGES += [2**64 - 1, 2**64 - 32, 10**6, 10**9]
LOAD_SECONDS = 60  # for one file; a whole one takes about two
SETTINGS = {"runtime": "llama.cpp", "quantization": "F16", "device": "cpu", "threads": 1}
SETTINGS |= {"context": 64, "generate": 4, "repetitions": 1, "warmups": 0, "depths": []}


def mutated(whole: bytes, header: int, seed: int) -> bytes:
    """``whole`` with one to four mutations, most of them in its first ``header`` bytes."""
    chance = random.Random(seed)
    data = bytearray(whole)
    for _ in range(chance.choice([1, 1, 1, 2, 4])):
        end = header if chance.random() < 0.9 else len(data)
        at = chance.randrange(min(end, len(data)))
        span = chance.choice([1, 8, 64, 4096])
        match chance.randrange(8):
            case 0:
                data[at] ^= 1 << chance.randrange(8)
            case 1:
                data[at : at + span] = chance.randbytes(len(data[at : at + span]))
            case 2:
                data[at : at + span] = bytes(len(data[at : at + span]))
            case 3:
                kind = chance.choice("IQ")
                size = struct.calcsize(kind)
                value = chance.choice([*EDGES, len(data), chance.getrandbits(8 * size)])
                data[at : at + size] = (value % 2 ** (8 * size)).to_bytes(size, "little")
            case 4:
                del data[at : at + span]
            case 5:
                other = chance.randrange(len(data))
                data[at:at] = data[other : other + span]
            case 6:
                other = chance.randrange(min(header, len(data)))
                data[at : at + span] = data[other : other + len(data[at : at + span])]
            case 7 if chance.random() < 0.5:
                del data[at:]
        if not data:
            break
    return bytes(data)


def mutated_value(whole: bytes, header: int, seed: int) -> bytes:
    """``whole`` with mutations that keep its length: those that an inspection may let pass."""
    chance = random.Random(seed)
    data = bytearray(whole)
    for _ in range(chance.choice([1, 1, 2, 4, 16])):
        at = chance.randrange(24, header if chance.random() < 0.8 else len(data) - 8)
        match chance.randrange(3):
            case 0:
                data[at] ^= 1 << chance.randrange(8)
            case 1:
                data[at : at + 4] = (chance.choice(EDGES) % 2**32).to_bytes(4, "little")
            case 2:
                data[at : at + 4] = struct.pack("<f", chance.choice([float("nan"), 1e38, -0.0]))
    return bytes(data)


def inspect(path: Path) -> str:
    """Whether a file passes; anything but a LabError of one line is raised."""
    try:
        facts_of(path)
    except LabError as error:
        if "\n" in str(error) or str(path) not in str(error):
            raise AssertionError(f"not one line that names the file: {error}") from error
        return "refused"
    return "passed"


def load(path: Path) -> str:
    """What a round says of a file, in a process of its own: read, or refused in one line."""
    folder = path.parent
    (folder / "prompt.json").write_text(json.dumps(PROMPT))
    done = subprocess.run(
        [sys.executable, "-m", "minillm_lab.jobs.watcher", str(os.getpid()),
         sys.executable, "-m", "minillm_lab.benchmark.round", "--variant", "v", "--round", "1",
         "--weights", path, "--prompt", folder / "prompt.json", "--settings", json.dumps(SETTINGS),
         "--output", folder / "round.json", "--log", folder / "log"],
        env=os.environ | {"PYTHONPATH": str(ROOT / "workflow")},
        capture_output=True, text=True, errors="replace", timeout=LOAD_SECONDS,
    )  # fmt: skip
    if done.returncode == 0:
        json.loads((folder / "round.json").read_text(), parse_constant=_no_constant)
        return "measured"
    said = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    if len(said) != 1 or "Traceback" in done.stderr:
        raise AssertionError(f"not one line: {done.stderr[-2000:]}")
    return "crashed, and said so" if "crashed" in said[0] else "refused by llama.cpp"


def _no_constant(name: str) -> None:
    raise AssertionError(f"{name} in JSON")


def header_bytes(path: Path) -> int:
    """Where the tensors of a whole file begin."""
    from gguf import GGUFReader

    return int(GGUFReader(path).data_offset)
