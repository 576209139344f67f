"""What the runtimes compute for the quality figures, held against the same one by one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Lfm2ForCausalLM,
    LlamaForCausalLM,
    MambaForCausalLM,
    MistralForCausalLM,
    PreTrainedModel,
)

from minillm_lab.quality.evaluation import opened
from minillm_lab.runtimes import Passage, replied
from minillm_lab.runtimes.transformers import HalfProducts
from quality_lab import FLOAT32, LLAMA
from tiny_model import write_tiny_mamba

PASSAGES = [
    Passage([*range(40, 60)], 12, [[7], [8, 9, 10], [], [11]]),
    Passage([5], 0),
    Passage([*range(90, 99)], 8, [[30, 31], [30, 31], [32], [33]]),
]


def mamba(folder: Path) -> Path:
    """A model of states alone, as a GGUF."""
    write_tiny_mamba(folder / "mamba.gguf")
    return folder / "mamba.gguf"


def saved(model: type[PreTrainedModel], **config: Any) -> Callable[[Path], Path]:
    """A way to write a tiny model of a class of Transformers."""

    def save(folder: Path) -> Path:
        torch.manual_seed(0)
        made = model.config_class(
            vocab_size=300,
            hidden_size=64,
            num_hidden_layers=2,
            initializer_range=0.3,  # large enough that what is not hidden shows
            **config,
        )
        model(made).save_pretrained(folder / "model")
        return folder / "model"

    return save


MAMBA = saved(MambaForCausalLM, state_size=16)
LFM2 = saved(  # convolutions beside attention
    Lfm2ForCausalLM,
    intermediate_size=64,
    num_attention_heads=4,
    num_key_value_heads=2,
    layer_types=["conv", "full_attention"],
)

DYNAMIC = saved(  # keys are turned by the length so far
    LlamaForCausalLM,
    intermediate_size=64,
    num_attention_heads=4,
    max_position_embeddings=600,
    rope_parameters={"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0},
)


SLIDING = saved(  # the last tokens alone are seen
    MistralForCausalLM,
    intermediate_size=64,
    num_attention_heads=4,
    num_key_value_heads=2,
    sliding_window=8,
)


@pytest.fixture
def model(
    runtime: str,
    made: Callable[[Path], Path] | None,
    tiny_gguf: Path,
    tiny_safetensors: Path,
    tmp_path: Path,
) -> tuple[Path, dict[str, Any]]:
    """The weights and settings of a case: those that it makes, or the tiny model's."""
    own, settings = (tiny_gguf, LLAMA) if runtime == "llama.cpp" else (tiny_safetensors, FLOAT32)
    return made(tmp_path) if made else own, settings


@pytest.mark.parametrize(
    "runtime, made",
    [
        ("llama.cpp", None),
        ("transformers", None),
        ("llama.cpp", mamba),
        ("transformers", MAMBA),
        ("transformers", LFM2),
        ("transformers", DYNAMIC),
    ],
    ids=[
        "llama.cpp",
        "transformers",
        "llama.cpp-mamba",
        "transformers-mamba",
        "transformers-lfm2",
        "transformers-dynamic",
    ],
)
def test_passages_together_have_the_logits_that_each_has_alone(
    runtime: str, model: tuple[Path, dict[str, Any]]
) -> None:
    (weights, settings), on_llama = model, runtime == "llama.cpp"
    long = Passage([5 + i * i % 200 for i in range(1200)], 700)
    with opened(weights, settings, 1200) as loaded:
        alone = []
        for passage in PASSAGES:
            alone.append(loaded.runtime.logits_of([Passage(passage.ids, passage.first)]).copy())
            for branch in passage.branches:
                continued = Passage(passage.ids + branch, len(passage.ids))
                if branch:
                    alone.append(loaded.runtime.logits_of([continued]).copy())
        together = loaded.runtime.logits_of(PASSAGES)
        assert together.shape[0] == sum(len(p) - p.first for p in PASSAGES)
        assert together == pytest.approx(np.concatenate(alone), abs=0.05 if on_llama else 1e-3)
    with opened(weights, settings, 1200) as loaded:
        whole = loaded.runtime.logits_of([long]).copy()
    with opened(weights, settings, 1200) as loaded:  # some models remember the longest passage
        streamed = [rows.copy() for rows in loaded.runtime.stream(long)]
        assert [len(rows) for rows in streamed] == [324, 176]  # of 512 tokens at a time
        assert np.concatenate(streamed) == pytest.approx(whole, abs=0.05 if on_llama else 1e-3)


@pytest.mark.parametrize(
    "runtime, made",
    [
        ("llama.cpp", None),
        ("transformers", None),
        ("llama.cpp", mamba),
        ("transformers", LFM2),
        ("transformers", DYNAMIC),
        ("transformers", SLIDING),
    ],
    ids=["llama.cpp", "transformers", "mamba", "lfm2", "dynamic", "sliding"],
)
def test_replies_together_are_those_that_each_prompt_has_alone(
    model: tuple[Path, dict[str, Any]],
) -> None:
    weights, settings = model
    prompts = [[40 + i * i % 200 for i in range(n)] for n in (5, 23, 1)]
    with opened(weights, settings, 128) as loaded:
        alone = [replied(loaded.runtime, prompt, 12) for prompt in prompts]
        assert loaded.runtime.replies(prompts, 12) == alone
        assert loaded.runtime.replies(prompts[:1], 1) == [alone[0][:1]]


def test_a_weight_that_lies_transposed_is_read_as_well(
    tiny_safetensors: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = AutoModelForCausalLM.from_pretrained
    turned = []

    def transposed(*arguments: Any, **settings: Any) -> Any:
        model = load(*arguments, **settings)
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().T.contiguous().T)
        turned.append(not model.lm_head.weight.is_contiguous())
        return model

    with opened(tiny_safetensors, FLOAT32, 128) as loaded:
        expected = loaded.runtime.logits_of(PASSAGES[:1])
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", transposed)
    with opened(tiny_safetensors, FLOAT32, 128) as loaded:
        assert turned == [True]
        assert loaded.runtime.logits_of(PASSAGES[:1]) == pytest.approx(expected, abs=1e-4)


def test_quick_products_of_halves_are_pytorchs_own() -> None:
    torch.manual_seed(0)
    x, weight, bias = (torch.randn(n).half() for n in ((2, 33, 576), (96, 576), (96,)))
    for arguments in ((x, weight), (x, weight, bias), (x, weight, None)):
        theirs = torch.nn.functional.linear(*arguments)
        with HalfProducts():
            ours = torch.nn.functional.linear(*arguments)
        assert ours.dtype == torch.float16
        assert (ours == theirs).float().mean() > 0.95  # the sums' order turns a rounding
        torch.testing.assert_close(ours, theirs, rtol=2**-10, atol=1e-4)
        rounded_often = sum(x[..., i::8] @ weight[:, i::8].T for i in range(8))
        assert (rounded_often == theirs).float().mean() < 0.8  # so the test can tell
