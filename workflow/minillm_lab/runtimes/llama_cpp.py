"""llama.cpp through llama-cpp-python's bindings of its C interface.

The bindings are used directly, not ``llama_cpp.Llama``. That class skips a prompt that it has seen
before and samples inside its loop, and both would distort the times.
"""

import ctypes
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
from llama_cpp._ggml import libggml
from numpy.typing import NDArray

from minillm_lab.jobs.errors import LabError
from minillm_lab.runtimes import STEP, Options, Passage, one_by_one, replied
from minillm_lab.runtimes.llama_library import (
    detokenize,
    load_model,
    messages,
    said,
    said_by_llama,
    tokenize,
)

FLASH_ATTENTION = {"auto": -1, "off": 0, "on": 1}
LOAD_MODES = {
    None: llama_cpp.LLAMA_LOAD_MODE_AUTO,
    True: llama_cpp.LLAMA_LOAD_MODE_MMAP,
    False: llama_cpp.LLAMA_LOAD_MODE_NONE,
}
LEFT_TO_IT = (None, "auto")  # settings that llama.cpp chooses itself
ALL_LAYERS = -1
KV_TYPES = {  # enum ggml_type; not through the gguf package, which costs 30 MB
    "f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "q8_0": 8, "iq4_nl": 20,
    "bf16": 30,
}  # fmt: skip
GPU_DEVICES = (1, 2)  # enum ggml_backend_dev_type: GPU, IGPU


def devices() -> list[dict[str, Any]]:
    """The devices that this build of llama.cpp can use: name, description, and if it is a GPU."""
    libggml.ggml_backend_dev_count.restype = ctypes.c_size_t
    libggml.ggml_backend_dev_get.restype = ctypes.c_void_p
    libggml.ggml_backend_dev_get.argtypes = [ctypes.c_size_t]
    for function in ("name", "description"):
        getattr(libggml, f"ggml_backend_dev_{function}").restype = ctypes.c_char_p
        getattr(libggml, f"ggml_backend_dev_{function}").argtypes = [ctypes.c_void_p]
    libggml.ggml_backend_dev_type.argtypes = [ctypes.c_void_p]
    found = [libggml.ggml_backend_dev_get(i) for i in range(libggml.ggml_backend_dev_count())]
    return [
        {
            "handle": device,
            "name": libggml.ggml_backend_dev_name(device).decode(),
            "description": libggml.ggml_backend_dev_description(device).decode(),
            "gpu": libggml.ggml_backend_dev_type(device) in GPU_DEVICES,
        }
        for device in found
    ]


def free_gpu_memory() -> int:
    """Free bytes on all GPUs that this build can use; 0 if there is none."""
    free, total, sum_ = ctypes.c_size_t(), ctypes.c_size_t(), 0
    libggml.ggml_backend_dev_memory.argtypes = [ctypes.c_void_p] * 3
    for device in devices():
        if device["gpu"]:
            libggml.ggml_backend_dev_memory(
                device["handle"], ctypes.byref(free), ctypes.byref(total)
            )
            sum_ += free.value
    return sum_


def flash_attention() -> str | None:
    """Whether it is enabled or disabled, by what llama.cpp said of the context."""
    settled = said_by_llama(r"flash_attn += (enabled|disabled)")  # before it, or auto
    return settled or said_by_llama(r"Flash Attention .*?(enabled|disabled)")


def kv_cache_bytes() -> int | None:
    """Bytes of the cache of keys and values, by what llama.cpp said; None if it has none.

    A model with a sliding window has two. llama.cpp says hundredths of a MiB.
    """
    sizes = [re.search(r"llama_kv_cache: size = +([\d.]+) MiB", text) for text in messages]
    found = [float(size[1]) for size in sizes if size]
    return round(sum(found) * 2**20) if found else None


class LlamaCpp:
    """A GGUF file in llama.cpp."""

    def __init__(self) -> None:
        self.model: Any = None
        self.context: Any = None
        self.threads = 0
        self.settings: dict[str, Any] = {}

    def prepare(self, weights: Path, options: Options) -> None:
        free_gpu_memory()  # it starts the GPU's driver; importing this module loaded the library

    def load(self, weights: Path, options: Options) -> None:
        on_gpu = options.device == "gpu"
        layers = (ALL_LAYERS if options.gpu_layers is None else options.gpu_layers) if on_gpu else 0
        self.free_before = free_gpu_memory()
        self.on_gpu = on_gpu and self.free_before > 0
        self.model = load_model(weights, n_gpu_layers=layers, load_mode=LOAD_MODES[options.mmap])
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = options.context
        params.n_seq_max = options.sequences
        params.kv_unified = (
            options.sequences > 1
        )  # branches share the cells of the tokens that they continue
        params.n_threads = options.threads
        params.n_threads_batch = options.threads_batch or options.threads
        if options.micro_batch:
            params.n_ubatch = options.micro_batch
            params.n_batch = max(params.n_batch, options.micro_batch)  # it would lower the former
        params.flash_attn_type = FLASH_ATTENTION[options.flash_attention]
        kv = options.kv_cache
        k, v = (kv, kv) if isinstance(kv, str) else (kv["k"], kv["v"])
        params.type_k, params.type_v = KV_TYPES[k], KV_TYPES[v]
        params.offload_kqv = params.op_offload = on_gpu
        self.has_state = llama_cpp.llama_model_is_recurrent(
            self.model
        ) or llama_cpp.llama_model_is_hybrid(self.model)
        self.context = llama_cpp.llama_init_from_model(self.model, params)
        if not self.context:
            reason = said("perhaps memory ran out")
            no_type = said_by_llama(r"([KV] cache type .* does not divide .*)")
            self.unload()
            if no_type:
                raise LabError(f"{weights}: {no_type}; take kv_cache: f16")
            raise LabError(
                f"{weights}: llama.cpp cannot make a context of {options.context} tokens: {reason};"
                " lower 'context'"
            )
        vocab = llama_cpp.llama_model_get_vocab(self.model)
        self.vocabulary = llama_cpp.llama_vocab_n_tokens(vocab)
        self.threads = llama_cpp.llama_n_threads(self.context)
        self.settings = {
            "context": llama_cpp.llama_n_ctx(self.context),
            "batch": llama_cpp.llama_n_batch(self.context),
            "micro_batch": llama_cpp.llama_n_ubatch(self.context),
            "threads_batch": llama_cpp.llama_n_threads_batch(self.context),
            "flash_attention": flash_attention() or options.flash_attention,
            "kv_cache": k if k == v else f"{k}/{v}",
            "kv_cache_bytes": kv_cache_bytes(),
            "load_mode": said_by_llama(r"load_mode = (\S+?)\)"),
            "gpu_layers": int(said_by_llama(r"offloaded (\d+)/\d+ layers to GPU") or 0),
            "layers": llama_cpp.llama_model_n_layer(self.model),
            "chosen": [
                key
                for key in ("flash_attention", "micro_batch", "mmap")
                if getattr(options, key) not in LEFT_TO_IT
            ],
            "build": llama_cpp.llama_print_system_info().decode().strip(" |"),
        }

    def unload(self) -> None:
        if self.context:
            llama_cpp.llama_free(self.context)
        if self.model:
            llama_cpp.llama_model_free(self.model)
        self.model = self.context = None

    def facts(self) -> dict[str, Any]:
        gpus = [d for d in devices() if d["gpu"]] if self.settings["gpu_layers"] else []
        backend = re.sub(r"\d+$", "", gpus[0]["name"]) if gpus else "CPU"
        return {
            "backend": {"MTL": "Metal"}.get(backend, backend),
            "device": gpus[0]["description"] if gpus else "CPU",
            "threads": self.threads,
            "settings": self.settings,
        }

    def accelerator_memory_peak(self) -> int | None:
        if not self.on_gpu:
            return None
        return self.free_before - free_gpu_memory()  # a backend never returns its memory pools

    def tokenize(self, text: str, plain: bool) -> list[int]:
        return tokenize(self.model, text, plain=plain)

    def detokenize(self, ids: list[int]) -> str:
        return detokenize(self.model, ids)

    def clear(self) -> None:
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), False)

    def prefill(self, ids: list[int]) -> None:
        step = llama_cpp.llama_n_batch(self.context)
        for start in range(0, len(ids), step):
            self._process(ids[start : start + step])

    def decode(self, token: int) -> None:
        self._process([token])

    def logits(self) -> NDArray[np.float32]:
        pointer = llama_cpp.llama_get_logits_ith(self.context, -1)
        return np.ctypeslib.as_array(pointer, shape=(self.vocabulary,))

    def logits_of(self, passages: Sequence[Passage]) -> NDArray[np.float32]:
        if len(passages) == 1:
            return self._logits_of(passages[0])
        # They go one after the other, since together they are hardly faster (docs/quality.md).
        if self.has_state:
            passages = one_by_one(passages)
        return np.concatenate([self._logits_of(passage).copy() for passage in passages])

    def replies(self, prompts: Sequence[list[int]], tokens: int) -> list[list[int]]:
        return [replied(self, prompt, tokens) for prompt in prompts]

    def stream(self, passage: Passage) -> Iterator[NDArray[np.float32]]:
        self.clear()
        for start in range(0, len(passage.ids), STEP):
            ids = enumerate(passage.ids[start : start + STEP], start)
            rows = self._evaluate([(token, i, (0,), i >= passage.first) for i, token in ids])
            if len(rows):
                yield rows

    def _logits_of(self, passage: Passage) -> NDArray[np.float32]:
        self.clear()
        ids, branches = passage.ids, passage.branches
        every = tuple(range(max(1, len(branches))))
        tokens = [(token, i, every, i >= passage.first) for i, token in enumerate(ids)]
        for sequence, branch in enumerate(branches):
            tokens += [(token, len(ids) + i, (sequence,), True) for i, token in enumerate(branch)]
        step = llama_cpp.llama_n_batch(self.context)
        parts = []
        for start in range(0, len(tokens), step):
            rows = self._evaluate(tokens[start : start + step])
            parts.append(rows if len(tokens) <= step else rows.copy())  # the next call reuses them
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _evaluate(self, tokens: list[tuple[int, int, tuple[int, ...], bool]]) -> Any:
        """Logits of the wanted tokens, shape (n, vocabulary).

        ``tokens`` holds (token, position, sequences, wanted) for each.
        """
        batch = llama_cpp.llama_batch_init(len(tokens), 0, max(len(t[2]) for t in tokens))
        try:
            batch.n_tokens = len(tokens)
            for i, (token, position, sequences, wanted) in enumerate(tokens):
                batch.token[i], batch.pos[i], batch.logits[i] = token, position, wanted
                batch.n_seq_id[i] = len(sequences)
                for j, sequence in enumerate(sequences):
                    batch.seq_id[i][j] = sequence
            self._decode(batch)
        finally:
            llama_cpp.llama_batch_free(batch)
        shape = (sum(t[3] for t in tokens), self.vocabulary)
        if not shape[0]:
            return np.empty(shape, np.float32)
        return np.ctypeslib.as_array(llama_cpp.llama_get_logits(self.context), shape=shape)

    def _process(self, ids: list[int]) -> None:
        tokens = (llama_cpp.llama_token * len(ids))(*ids)
        self._decode(llama_cpp.llama_batch_get_one(tokens, len(ids)))

    def _decode(self, batch: Any) -> None:
        status = llama_cpp.llama_decode(self.context, batch)
        llama_cpp.llama_synchronize(self.context)
        if status:
            raise LabError(
                f"llama.cpp could not process {batch.n_tokens} tokens (status {status}): "
                + (
                    "the context is full; raise 'context'"
                    if status == 1
                    else said("it gave no reason")
                )
            )


RUNTIME = LlamaCpp
