"""Texts and tokens by a model's ``tokenizer.json``, without Transformers in memory."""

from functools import cached_property
from pathlib import Path

import tokenizers


class Tokenizer:
    """The tokenizer of a folder, read when it is first asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def _whole(self) -> tokenizers.Tokenizer:
        found = tokenizers.Tokenizer.from_file(str(self.folder / "tokenizer.json"))
        found.no_truncation()
        found.no_padding()
        return found

    def tokenize(self, text: str, plain: bool) -> list[int]:
        ids: list[int] = self._whole.encode(text, add_special_tokens=plain).ids
        return ids

    def detokenize(self, ids: list[int]) -> str:
        text: str = self._whole.decode(ids, skip_special_tokens=True)
        return text
