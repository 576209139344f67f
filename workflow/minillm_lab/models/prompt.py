"""The prompt that every variant of a model is given: one text, one list of token ids.

The text comes from the model's own chat template and the ids from the tokenizer of the model's
source. Without a template, the tokenizer adds its usual tokens, such as a begin-of-text token. Each
round compares its runtime's tokenizer with these ids.

A chat template is a program that came with the model: it runs in Jinja's sandbox, with little time
and memory.
"""

import argparse
import json
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers.utils.chat_template_utils import render_jinja_template

from minillm_lab.header import LONGEST_TEMPLATE
from minillm_lab.jobs.command import run
from minillm_lab.jobs.errors import LabError, first_line
from minillm_lab.jobs.files import gguf_files, write_text

TEMPLATE_SECONDS = 5
TEMPLATE_BYTES = 1 << 30  # of address space, added to the process's own
LONGEST_PROMPT = 1 << 18  # characters of the longest text that a template may make


def from_folder(folder: Path, question: str) -> dict[str, Any]:
    """The prompt by the tokenizer of a folder of safetensors."""
    from transformers import AutoTokenizer  # seconds, and a GGUF file needs none of it

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        raise LabError(
            f"{folder}: no usable tokenizer: {first_line(error)}; add the tokenizer's files"
        ) from error
    if tokenizer.chat_template is None:
        return prompt_of(question, tokenizer(question)["input_ids"], False, "transformers")
    chat = [{"role": "user", "content": question}]

    def render() -> str:
        text: str = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        return text

    text = rendered(folder, str(tokenizer.chat_template), render)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return prompt_of(text, ids, True, "transformers")


def from_gguf(path: Path, question: str) -> dict[str, Any]:
    """The prompt by the vocabulary and chat template in a GGUF file."""
    import llama_cpp

    from minillm_lab.runtimes.llama_library import load_model, tokenize

    model = load_model(path, vocab_only=True)
    try:
        template = llama_cpp.llama_model_chat_template(model, None)
        if template is None:
            return prompt_of(question, tokenize(model, question, plain=True), False, "llama.cpp")
        vocab = llama_cpp.llama_model_get_vocab(model)
        special = {}
        for name in ("bos", "eos"):
            token = getattr(llama_cpp, f"llama_vocab_{name}")(vocab)
            text = llama_cpp.llama_vocab_get_text(vocab, token) if token >= 0 else b""
            special[f"{name}_token"] = text.decode(errors="replace")
        written = template.decode(errors="replace")
        chat = [{"role": "user", "content": question}]

        def render() -> str:
            texts, _ = render_jinja_template(
                [chat], chat_template=written, add_generation_prompt=True, **special
            )
            return str(texts[0])

        text = rendered(path, written, render)
        return prompt_of(text, tokenize(model, text), True, "llama.cpp")
    finally:
        llama_cpp.llama_model_free(model)


def rendered(source: Path, template: str, render: Callable[[], str]) -> str:
    """The text that a chat template makes. Raises LabError if the template cannot be used."""
    if len(template.encode(errors="replace")) > LONGEST_TEMPLATE:
        raise LabError(
            f"{source}: its chat template is longer than {LONGEST_TEMPLATE} bytes; remove it, or"
            " take another model"
        )
    try:
        with bounded(TEMPLATE_SECONDS, TEMPLATE_BYTES):
            text = render()
    except Exception as error:  # a template may raise whatever it likes
        raise LabError(
            f"{source}: its chat template cannot be used: {first_line(error):.200}; remove it, or"
            " take another model"
        ) from error
    if not 0 < len(text) <= LONGEST_PROMPT:
        raise LabError(
            f"{source}: its chat template makes a prompt of {len(text)} characters, and 1 to"
            f" {LONGEST_PROMPT} are allowed; remove it, or take another model"
        )
    return text


@contextmanager
def bounded(seconds: int, bytes_: int) -> Iterator[None]:
    """Raise TimeoutError or (on Linux) MemoryError in a block that takes more than this."""

    def too_long(*_: object) -> None:
        raise TimeoutError(f"it takes more than {seconds} seconds")

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    before = signal.signal(signal.SIGALRM, too_long)
    try:
        if (status := Path("/proc/self/statm")).exists():
            now = int(status.read_text().split()[0]) * resource.getpagesize()
            most = now + bytes_ if hard == resource.RLIM_INFINITY else min(now + bytes_, hard)
            resource.setrlimit(resource.RLIMIT_AS, (most, hard))
        signal.alarm(seconds)
        yield
    finally:
        signal.alarm(0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.signal(signal.SIGALRM, before)


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
    make = from_gguf if gguf_files(arguments.tokenizer) else from_folder
    prompt = make(arguments.tokenizer, arguments.question)
    write_text(arguments.output, json.dumps(prompt, ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokenizer", type=Path, required=True, help="a folder or a GGUF file")
    parser.add_argument("--question", required=True)
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)
