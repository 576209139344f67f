"""The runtimes, which execute models: a small protocol, and one file for each.

To add a runtime, write its file, name it in ``MODULES`` and ``DISTRIBUTIONS``, and give its
variants a class in ``experiment/variants.py``.
"""

from __future__ import annotations  # numpy is for type checkers only: the Snakefile imports this

import gc
import json
import os
import re
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, distribution, version
from typing import TYPE_CHECKING, Any, Protocol
from zlib import crc32

from minillm_lab.experiment.libraries import library_of
from minillm_lab.jobs.errors import LabError
from minillm_lab.jobs.files import weight_files

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

MODULES = {
    "llama.cpp": "minillm_lab.runtimes.llama_cpp",
    "transformers": "minillm_lab.runtimes.transformers",
    "bitsandbytes": "minillm_lab.runtimes.transformers",
    "torchao": "minillm_lab.runtimes.transformers",
    "mlx": "minillm_lab.runtimes.mlx_lm",
    "openvino": "minillm_lab.runtimes.openvino",
    "onnx": "minillm_lab.runtimes.onnx",
}
BYTES = {"float16": 2, "bfloat16": 2, "float32": 4}  # of a weight
DISTRIBUTIONS = {
    "llama.cpp": ["llama-cpp-python"],
    "transformers": ["transformers", "torch"],
    "bitsandbytes": ["transformers", "torch", "bitsandbytes"],
    "torchao": ["transformers", "torch", "torchao"],
    "mlx": ["mlx", "mlx-lm"],
    "openvino": ["openvino", "nncf"],
    "onnx": ["onnxruntime-genai", "onnxruntime", "onnx", "onnx-ir"],
}
STEP = 512  # tokens of a passage that are evaluated at once where it is streamed
COMPILED = r"([^/\n]+\.(?:so|dylib|dll)\b.*?),sha256=.*,(\d+)$"  # in a package's list of files


@dataclass(frozen=True)
class Options:
    """Options for loading a model: a variant's settings with everything resolved."""

    threads: int  # of decoding
    threads_batch: int | None = None  # of prompts; as many if None
    context: int = 1024
    device: str = "cpu"
    dtype: str = "float16"
    gpu_layers: int | None = None
    flash_attention: str = "auto"
    micro_batch: int | None = None
    mmap: bool | None = None
    kv_cache: str | dict[str, str] = "f16"  # of both, or of k and v
    precision: str = "f32"
    dynamic_quantization: int | str = 0  # activations in a group; 0 for none
    sequences: int = 1  # most branches of a passage in ``logits_of``

    @property
    def most_threads(self) -> int:
        return max(self.threads, self.threads_batch or 0)


def resolved(settings: dict[str, Any], **more: Any) -> Options:
    """The options for a variant's settings; ``auto`` threads become numbers for this machine.

    It also sets OMP_NUM_THREADS, which Snakemake sets from a job's threads; so call it before
    importing a runtime.
    """
    from minillm_lab.jobs.limits import physical_cores

    known = {k: v for k, v in settings.items() if k in Options.__dataclass_fields__}
    if known["threads"] == "auto":
        known["threads"] = physical_cores()
    if known.get("threads_batch") in (None, "auto"):
        known["threads_batch"] = known["threads"]
    options = Options(**known | more)
    os.environ["OMP_NUM_THREADS"] = str(options.most_threads)
    return options


@dataclass(frozen=True)
class Passage:
    """Tokens in an empty context, and branches that continue them and do not see each other."""

    ids: list[int]
    first: int  # position of the first token whose logits are wanted
    branches: Sequence[list[int]] = ()

    def __len__(self) -> int:
        return len(self.ids) + sum(map(len, self.branches))


def one_by_one(passages: Sequence[Passage]) -> list[Passage]:
    """Passages without branches that have the same rows in the same order.

    They are for models that pass a state from token to token, where no mask hides a token.
    """
    found = []
    for passage in passages:
        found.append(Passage(passage.ids, passage.first))
        branches = filter(None, passage.branches)
        found += [Passage(passage.ids + ids, len(passage.ids)) for ids in branches]
    return found


def replied(runtime: Runtime, prompt: list[int], tokens: int) -> list[int]:
    """The reply to one prompt, token by token."""
    runtime.clear()
    runtime.prefill(prompt)
    ids = [int(runtime.logits().argmax())]
    while len(ids) < tokens:
        runtime.decode(ids[-1])
        ids.append(int(runtime.logits().argmax()))
    return ids


def decoded(runtime: Runtime, passage: Passage) -> Iterator[NDArray[np.float32]]:
    """The wanted rows of a passage, one at a time, as decoding computes them.

    They are for runtimes that decode with other arithmetic than they read a prompt with. Tokens
    before the wanted ones, and those that branches continue, are read as a prompt. Each row has the
    shape (1, vocabulary) and is valid until the next.
    """
    rows = len(passage.ids) - passage.first
    start = passage.first + 1 if rows else len(passage.ids)
    runtime.clear()
    runtime.prefill(passage.ids[:start])
    if rows:
        yield runtime.logits()[None]
    for token in passage.ids[start:]:
        runtime.decode(token)
        yield runtime.logits()[None]
    for branch in filter(None, passage.branches):
        runtime.clear()
        runtime.prefill(passage.ids)
        for token in branch:
            runtime.decode(token)
            yield runtime.logits()[None]


def wanted_before(passage: Passage) -> list[int]:
    """How many wanted tokens of a passage lie before each of its steps, and in all of them."""
    starts = (*range(0, len(passage.ids), STEP), len(passage.ids))
    return [max(start - passage.first, 0) for start in starts]


class Runtime(Protocol):
    """One model in one runtime. Positions are counted from the last ``clear``."""

    def prepare(self, weights: Path, options: Options) -> None:
        """Import the libraries and start the device, which are not part of a load time."""

    def load(self, weights: Path, options: Options) -> None:
        """Read the weights and make a context; return once every weight has been read."""

    def unload(self) -> None:
        """Free the weights and the context."""

    def facts(self) -> dict[str, Any]:
        """``backend`` and ``device`` as detected after loading, and runtime-specific settings."""

    def accelerator_memory_peak(self) -> int | None:
        """Most bytes taken on the accelerator since loading; None on the CPU or if unknown."""

    def tokenize(self, text: str, plain: bool) -> list[int]:
        """Token ids of a prompt, in which special tokens are recognized.

        To a ``plain`` text the tokenizer adds its usual tokens, such as a begin-of-text token. Any
        other text is from a chat template, which wrote these tokens itself.
        """

    def detokenize(self, ids: list[int]) -> str:
        """The text of generated token ids; special tokens are left out."""

    def clear(self) -> None:
        """Forget all tokens, so that the next prefill starts from an empty context."""

    def prefill(self, ids: list[int]) -> None:
        """Process a prompt; return once its last token's logits are computed."""

    def decode(self, token: int) -> None:
        """Process one more token; return once its logits are computed."""

    def logits(self) -> NDArray[np.float32]:
        """The last token's logits, shape (vocabulary,), valid until the next call."""

    def logits_of(self, passages: Sequence[Passage]) -> NDArray[np.float32]:
        """The wanted logits of passages that do not see each other.

        The rows belong to each passage in turn: first to its ids from ``first`` on, then to its
        branches, one after the other. The shape is (sum of len(passage) - passage.first,
        vocabulary); for positions before ``first`` no logits are computed. They are valid until the
        next call.
        """

    def replies(self, prompts: Sequence[list[int]], tokens: int) -> list[list[int]]:
        """The ids of ``tokens`` new tokens after each prompt, each the most likely one.

        End of text is ignored.
        """

    def stream(self, passage: Passage) -> Iterator[NDArray[np.float32]]:
        """The wanted logits of one passage without branches, STEP of its tokens at a time.

        The shape is (n, vocabulary); a step without a wanted token yields nothing. Each is valid
        until the next. Memory does not grow with the passage, but for the cache.
        """


def size_in(weights: Path, dtype: str) -> int:
    """Bytes of a GGUF file, or of a folder's safetensors if held in memory as ``dtype``."""
    size = sum(file.stat().st_size for file in weight_files(weights))
    try:
        facts = json.loads((weights / "config.json").read_bytes())
        stored = str(facts.get("dtype") or facts.get("torch_dtype"))
    except (OSError, ValueError, AttributeError):
        return size
    if library_of(weights.name):
        return size
    return size * BYTES[dtype] // BYTES.get(stored, BYTES[dtype])


def check_memory(weights: Path, options: Options) -> None:
    """Raise LabError if the weights alone need more memory than there is, without reading them."""
    from minillm_lab.jobs.limits import memory_limit

    needed, there = size_in(weights, options.dtype), memory_limit()
    if needed > there and options.device == "cpu":
        raise LabError(
            f"{weights}: does not fit into memory: its weights alone need {needed / 1e6:.0f} MB of"
            f" the {there / 1e6:.0f} MB there are; take a smaller quantization, or another machine"
        )


def runtime_module(name: str) -> str:
    """The name of a runtime's module below the package, such as ``runtimes.llama_cpp``."""
    return MODULES[name].partition(".")[2]


@contextmanager
def importing() -> Iterator[None]:
    """Import a large library without looking for garbage, which takes a sixth of the time."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@importing()
def open_runtime(name: str) -> Runtime:
    """A runtime by its name; this imports its library."""
    runtime: Runtime = import_module(MODULES[name]).RUNTIME()
    return runtime


def described(name: str, options: Options, runtime: Runtime) -> dict[str, Any]:
    """A loaded runtime as results record it: name, versions, threads, and its own facts."""
    about = {"name": name, "version": runtime_versions(name), "threads": options.threads}
    return about | runtime.facts()


def check_installed(names: Iterable[str]) -> None:
    """Raise LabError if a library of a runtime is not installed; it says how to install it."""
    missing = []
    for name in sorted(names):
        try:
            runtime_versions(name)
        except PackageNotFoundError:
            missing.append(name)
    if missing:
        more = [name for name in missing if name not in ("llama.cpp", "transformers")]
        how = f' RUNTIMES="{" ".join(more)}"' if more else ""
        raise LabError(
            f"{', '.join(missing)}: not installed, and variants run in it; install it by: make"
            f" install{how}"
        )


@cache
def runtime_versions(name: str) -> dict[str, str]:
    """The installed versions of the libraries that a runtime consists of.

    They are read from package metadata; nothing is imported.
    """
    return {package: version(package) for package in DISTRIBUTIONS[name]}


@cache
def runtime_build(name: str) -> dict[str, str]:
    """The versions, and a checksum that differs between builds of one version.

    The checksum covers the names and sizes of compiled libraries in the package's own list of
    files, which another backend changes. PyTorch's version names its build. Results do not record
    the checksum.
    """
    if name != "llama.cpp":
        return runtime_versions(name)
    (package,) = DISTRIBUTIONS[name]
    listed = distribution(package).read_text("RECORD") or ""
    libraries = sorted(re.findall(COMPILED, listed, re.M))
    return runtime_versions(name) | {"build": f"{crc32(str(libraries).encode()):08x}"}
