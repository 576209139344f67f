"""llama.cpp's library as all modules use it: its messages, model files and tokenizer."""

import ctypes
import re
from pathlib import Path
from typing import Any

import llama_cpp

from minillm_lab.jobs.command import log
from minillm_lab.jobs.errors import LabError
from minillm_lab.jobs.files import gguf_files

DEBUG = 1  # enum ggml_log_level

messages: list[str] = []  # llama.cpp's messages since the last load, for errors and detection


@llama_cpp.llama_log_callback
def _keep_message(level: int, text: bytes, user_data: Any) -> None:
    if level == DEBUG:  # there are thousands while loading, which is timed
        return
    line = text.decode("utf-8", "replace").rstrip("\n")
    if line.strip("."):
        messages.append(line)
        log.info("llama.cpp: %s", line)


llama_cpp.llama_log_set(_keep_message, ctypes.c_void_p(0))
llama_cpp.llama_backend_init()


def said(fallback: str) -> str:
    """llama.cpp's first message since the last load that names an error, else ``fallback``."""
    told = [m for m in messages if not m.startswith(("print_info", "llama_model_loader: -"))]
    reasons = [m for m in told if re.search(r"error|fail|unknown|invalid|missing", m, re.I)]
    return reasons[0].strip() if reasons else fallback


def said_by_llama(pattern: str) -> str | None:
    """The first group of the first message since the last load that matches, or None."""
    found = (re.search(pattern, message) for message in messages)
    return next((match.group(1) for match in found if match), None)


def load_model(path: Path, **settings: Any) -> Any:
    """A ``llama_model`` from a GGUF file, or from a folder of parts, the first of which names all.

    Raises LabError with llama.cpp's own reason.
    """
    first = next(iter(gguf_files(path)), path)
    params = llama_cpp.llama_model_default_params()
    for name, value in settings.items():
        setattr(params, name, value)
    messages.clear()
    model = llama_cpp.llama_model_load_from_file(str(first).encode(), params)
    if not model:
        raise LabError(f"{path}: llama.cpp cannot load it: {said('it gave no reason')}")
    return model


def tokenize(model: Any, text: str, special: bool = True, plain: bool = False) -> list[int]:
    """Token ids of ``text``.

    ``special``: special tokens are recognized. ``plain``: the tokenizer adds its usual tokens.
    """
    vocab = llama_cpp.llama_model_get_vocab(model)
    data = text.encode()
    room = len(data) + 8
    ids = (llama_cpp.llama_token * room)()
    n = llama_cpp.llama_tokenize(vocab, data, len(data), ids, room, plain, special)
    if n < 0:
        raise LabError("llama.cpp cannot tokenize the prompt; take another prompt or model")
    return list(ids[:n])


def piece(model: Any, token: int) -> bytes:
    """A token's own bytes, special or not."""
    vocab = llama_cpp.llama_model_get_vocab(model)
    room = 256
    buffer = ctypes.create_string_buffer(room)
    n = llama_cpp.llama_token_to_piece(vocab, token, buffer, room, 0, True)
    if n < 0:
        buffer = ctypes.create_string_buffer(-n)
        n = llama_cpp.llama_token_to_piece(vocab, token, buffer, -n, 0, True)
    return bytes(buffer.raw[:n])


def detokenize(model: Any, ids: list[int]) -> str:
    """The text of token ids; special tokens are left out."""
    vocab = llama_cpp.llama_model_get_vocab(model)
    tokens = (llama_cpp.llama_token * len(ids))(*ids)
    room = 64 * len(ids) + 64
    buffer = ctypes.create_string_buffer(room)
    n = llama_cpp.llama_detokenize(vocab, tokens, len(ids), buffer, room, True, False)
    if n < 0:
        buffer = ctypes.create_string_buffer(-n)
        n = llama_cpp.llama_detokenize(vocab, tokens, len(ids), buffer, -n, True, False)
    return buffer.raw[:n].decode("utf-8", "replace")
