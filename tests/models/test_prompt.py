"""The prompt is one text and one list of token ids, whichever tokenizer made them."""

import resource
import shutil
import signal
from pathlib import Path

import pytest

from minillm_lab.jobs.errors import LabError
from minillm_lab.models import prompt
from minillm_lab.models.prompt import from_folder, from_gguf
from minillm_lab.models.safetensors import write_safetensors
from minillm_lab.runtimes import Options, open_runtime
from tiny_model import TEMPLATE, VOCABULARY_SPECIAL, write_tiny_gguf

QUESTIONS = ["Why?", "hello in the\n\nend — ñ, 你好, मूल्य {x} \"q\" 'q' <|im_end|> $HOME"]


@pytest.mark.parametrize("question", QUESTIONS)
def test_both_tokenizers_agree(question: str, tiny_gguf: Path, tiny_safetensors: Path) -> None:
    gguf, folder = from_gguf(tiny_gguf, question), from_folder(tiny_safetensors, question)
    assert gguf["text"] == folder["text"]
    assert gguf["token_ids"] == folder["token_ids"]
    assert question in gguf["text"] and gguf["text"].endswith("<|im_start|>assistant\n")


@pytest.mark.parametrize("begins", [True, False])
@pytest.mark.parametrize("template", [TEMPLATE, None], ids=["template", "no template"])
def test_without_a_template_a_prompt_begins_as_its_tokenizer_says(
    template: str | None, begins: bool, tmp_path: Path
) -> None:
    file, folder = tmp_path / "tiny.gguf", tmp_path / "folder"
    write_tiny_gguf(file, template=template, begins=begins)
    write_safetensors(file, folder)
    begin = [VOCABULARY_SPECIAL.index("<|endoftext|>") + 300 - len(VOCABULARY_SPECIAL)]
    for source, make in ((file, from_gguf), (folder, from_folder)):
        made = make(source, "Why?")
        ids = made["token_ids"]
        assert (ids[:1] == begin) == (begins and template is None)
        assert begin not in [[token] for token in ids[1:]]
        for name, weights in (("llama.cpp", file), ("transformers", folder)):
            runtime = open_runtime(name)
            runtime.load(weights, Options(threads=1, context=64))
            assert runtime.tokenize(made["text"], not made["chat_template"]) == ids
            runtime.unload()


HOSTILE = {
    "endless loops": "{% for a in range(99999) %}" * 3 + "{% endfor %}" * 3,
    "memory in one go": "{{ 'a' * 10**10 }}",
    "a macro of itself": "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}",
    "a file": "{% include '/etc/passwd' %}",
    "a way out of the sandbox": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "a command": "{{ cycler.__init__.__globals__.os.popen('touch canary').read() }}",
    "deep brackets": "{{ " + "(" * 20000 + "1" + ")" * 20000 + " }}",
    "a refusal of two lines": "{{ raise_exception('no\\nway') }}",
    "no template": "{% for %}",
    "a flood": "{% for a in range(99999) %}{{ 'x' * 99 }}{% endfor %}",
    "nothing": "{{ '' }}",
    "more than a megabyte": "{# " + "x" * (1 << 20) + " #}",
}


@pytest.mark.parametrize("template", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_template_is_refused_in_one_line(
    template: str,
    tiny_gguf: Path,
    tiny_safetensors: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(prompt, "TEMPLATE_SECONDS", 1)
    folder = shutil.copytree(tiny_safetensors, tmp_path / "folder")
    (folder / "chat_template.jinja").write_text(template)
    file = tmp_path / "file.gguf"
    write_tiny_gguf(file, template=template)
    limits = resource.getrlimit(resource.RLIMIT_AS)
    for source, make in ((file, from_gguf), (folder, from_folder)):
        with pytest.raises(LabError) as error:
            make(source, "Why?")
        assert str(error.value).startswith(f"{source}: its chat template ")
        assert "\n" not in str(error.value)
    assert not (tmp_path / "canary").exists()
    assert resource.getrlimit(resource.RLIMIT_AS) == limits and signal.alarm(0) == 0
