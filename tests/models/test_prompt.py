"""The prompt is one text and one list of token ids, whichever tokenizer made them."""

from pathlib import Path

import pytest

from minillm_lab.models.prompt import from_folder, from_gguf

QUESTIONS = ["Why?", "hello in the\n\nend — ñ, 你好, मूल्य {x} \"q\" 'q' <|im_end|> $HOME"]


@pytest.mark.parametrize("question", QUESTIONS)
def test_both_tokenizers_agree(question: str, tiny_gguf: Path, tiny_safetensors: Path) -> None:
    gguf, folder = from_gguf(tiny_gguf, question), from_folder(tiny_safetensors, question)
    assert gguf["text"] == folder["text"]
    assert gguf["token_ids"] == folder["token_ids"]
    assert question in gguf["text"] and gguf["text"].endswith("<|im_start|>assistant\n")
