"""A model's tokenizer, from a folder or a GGUF file: token ids, and the bytes that they spell."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from minillm_lab.jobs.errors import LabError, first_line
from minillm_lab.jobs.files import gguf_files

SPACE = b" "
Tokenize = Callable[[str], list[int]]


class Tokenizer(NamedTuple):
    """A tokenizer that treats special tokens as plain text."""

    encode: Tokenize
    begin: int | None  # the begin-of-text token, if the tokenizer adds one
    spellings: Callable[[list[int]], list[list[bytes]]]  # each token's bytes, in each possible way


def open_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer of a folder or a GGUF file. Raises LabError if there is none."""
    if not gguf_files(path):
        from transformers import AutoTokenizer

        try:
            tokenizer: Any = AutoTokenizer.from_pretrained(
                path, local_files_only=True, trust_remote_code=False
            )
        except (OSError, ValueError) as error:
            raise LabError(
                f"{path}: no usable tokenizer: {first_line(error)}; add the tokenizer's files"
            ) from error

        def encode(text: str) -> list[int]:
            ids: list[int] = tokenizer(
                text, add_special_tokens=False, split_special_tokens=True, verbose=False
            )["input_ids"]
            return ids

        def spellings(ids: list[int]) -> list[list[bytes]]:
            return read_tokens(tokenizer.convert_ids_to_tokens(ids))

        begin = tokenizer.bos_token_id
        adds = begin in tokenizer("a")["input_ids"][:1]
        return Tokenizer(encode, begin if adds else None, spellings)
    import llama_cpp

    from minillm_lab.runtimes.llama_library import load_model, piece, tokenize

    model = load_model(path, vocab_only=True)
    vocab = llama_cpp.llama_model_get_vocab(model)
    adds = llama_cpp.llama_vocab_get_add_bos(vocab)
    return Tokenizer(
        lambda text: tokenize(model, text, special=False),
        llama_cpp.llama_vocab_bos(vocab) if adds else None,
        lambda ids: [[piece(model, i) for i in ids]],
    )


def read_tokens(tokens: list[str]) -> list[list[bytes]]:
    """The bytes that tokens stand for, in each of the two ways that vocabularies write bytes.

    Byte-level vocabularies have a printable symbol for each byte. SentencePiece's have "▁" for a
    space and "<0xE0>" for a byte that no token holds.
    """
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    byte_of = {symbol: byte for byte, symbol in bytes_to_unicode().items()}

    def by_level(token: str) -> bytes:
        known = all(symbol in byte_of for symbol in token)
        return bytes(map(byte_of.__getitem__, token)) if known else token.encode()

    def by_piece(token: str) -> bytes:
        if re.fullmatch("<0x[0-9A-F]{2}>", token):
            return bytes([int(token[3:5], 16)])
        return token.replace("▁", " ").encode()

    return [[by_level(token) for token in tokens], [by_piece(token) for token in tokens]]


def sizes_of(content: bytes, spellings: list[list[bytes]]) -> list[int] | None:
    """The number of bytes of each token; None if the tokens do not spell the text.

    A space that the tokenizer puts before the text is not counted.
    """
    for spelled in spellings:
        whole, sizes = b"".join(spelled), list(map(len, spelled))
        if whole == SPACE + content and sizes:
            sizes[0] -= 1
        if whole in (content, SPACE + content):
            return sizes
    return None
