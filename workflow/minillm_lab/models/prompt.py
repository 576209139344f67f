"""The prompt as every variant of a model gets it: one text, one list of token ids.

The text comes from the model's own chat template, the ids from the tokenizer of the model's
source. Each runtime's tokenizer is held against them in its rounds.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer
from transformers.utils.chat_template_utils import render_jinja_template

from minillm_lab.command import LabError, first_line, run
from minillm_lab.files import write_text


def from_folder(folder: Path, question: str) -> dict[str, Any]:
    """Prompt by the tokenizer of a folder of safetensors."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        raise LabError(f"{folder}: no usable tokenizer: {first_line(error)}") from error
    if tokenizer.chat_template is None:
        return prompt_of(question, tokenizer(question)["input_ids"], False, "transformers")
    chat = [{"role": "user", "content": question}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return prompt_of(text, ids, True, "transformers")


def from_gguf(path: Path, question: str) -> dict[str, Any]:
    """Prompt by the vocabulary and chat template in a GGUF file."""
    import llama_cpp

    from minillm_lab.runtimes.llama_cpp import load_model, tokenize

    model = load_model(path, vocab_only=True)
    try:
        template = llama_cpp.llama_model_chat_template(model, None)
        if template is None:
            return prompt_of(question, tokenize(model, question), False, "llama.cpp")
        vocab = llama_cpp.llama_model_get_vocab(model)
        special = {}
        for name in ("bos", "eos"):
            token = getattr(llama_cpp, f"llama_vocab_{name}")(vocab)
            text = llama_cpp.llama_vocab_get_text(vocab, token) if token >= 0 else b""
            special[f"{name}_token"] = text.decode()
        chat = [{"role": "user", "content": question}]
        texts, _ = render_jinja_template(
            [chat], chat_template=template.decode(), add_generation_prompt=True, **special
        )
        return prompt_of(texts[0], tokenize(model, texts[0]), True, "llama.cpp")
    finally:
        llama_cpp.llama_model_free(model)


def prompt_of(text: str, ids: list[int], chat_template: bool, tokenizer: str) -> dict[str, Any]:
    if not ids:
        raise LabError("the prompt has no tokens; ask something in 'prompt'")
    return {
        "text": text,
        "token_ids": [int(i) for i in ids],
        "chat_template": chat_template,
        "tokenizer": tokenizer,
    }


def main(arguments: argparse.Namespace) -> None:
    make = from_folder if arguments.tokenizer.is_dir() else from_gguf
    prompt = make(arguments.tokenizer, arguments.question)
    write_text(arguments.output, json.dumps(prompt, ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokenizer", type=Path, required=True, help="a folder or a GGUF file")
    parser.add_argument("--question", required=True)
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)
