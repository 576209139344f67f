"""MLX through mlx-lm: on Apple's GPUs, and on any CPU, where it is slow."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx_lm.models.cache import RotatingKVCache, make_prompt_cache
from mlx_lm.utils import load_model
from numpy.typing import NDArray
from transformers import AutoTokenizer

from minillm_lab.jobs.errors import LabError, first_line
from minillm_lab.runtimes import STEP, Options, Passage, one_by_one, replied


class Mlx:
    """A folder that ``models.mlx_folder`` wrote, in MLX."""

    def __init__(self) -> None:
        self.model: Any = None
        self.tokenizer: Any = None
        self.cache: Any = None
        self._logits: Any = None

    def prepare(self, weights: Path, options: Options) -> None:
        on_gpu = options.device == "gpu" and mx.metal.is_available()
        mx.set_default_device(mx.gpu if on_gpu else mx.cpu)
        self.backend = "Metal" if on_gpu else "CPU"
        mx.eval(mx.zeros(1))  # starts the device

    def load(self, weights: Path, options: Options) -> None:
        try:
            self.model, config = load_model(weights)  # reads every weight
        except Exception as error:  # the library raises errors of every kind for a broken file
            raise LabError(f"{weights}: MLX cannot load it: {first_line(error)}") from error
        self.model.eval()
        self.clear()
        window = window_of(config)
        keeps = any(isinstance(one, RotatingKVCache) for one in self.cache)
        if window and not keeps and options.context > window:
            raise LabError(
                f"{weights}: its layers see the last {window} tokens, which mlx-lm does not keep"
                f" to; set context: {window} or less"
            )
        self.weights, self.context = weights, options.context
        self.dtype, self.quantization = config["dtype"], config.get("quantization")

    def unload(self) -> None:
        self.model = self.cache = self._logits = None
        mx.clear_cache()

    def facts(self) -> dict[str, Any]:
        how = self.quantization or {}
        return {
            "backend": self.backend,
            "device": self.backend,
            "settings": {
                "context": self.context,
                "dtype": self.dtype,
                "kv_cache": self.dtype,
                **{key: how[key] for key in ("bits", "group_size", "mode") if key in how},
            },
        }

    def accelerator_memory_peak(self) -> int | None:
        return int(mx.get_peak_memory()) if self.backend == "Metal" else None

    def tokenize(self, text: str, plain: bool) -> list[int]:
        ids: list[int] = self._tokenizer()(text, add_special_tokens=plain)["input_ids"]
        return ids

    def detokenize(self, ids: list[int]) -> str:
        text: str = self._tokenizer().decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    def clear(self) -> None:
        self.cache, self.seen = make_prompt_cache(self.model), 0

    def prefill(self, ids: list[int]) -> None:
        if len(ids) > 1:  # without logits, as mlx-lm itself reads a prompt
            self._process(ids[:-1])
            mx.eval([layer.state for layer in self.cache])
        self.decode(ids[-1])

    def decode(self, token: int) -> None:
        self._logits = self._process([token])[-1]
        mx.eval(self._logits)

    def logits(self) -> NDArray[np.float32]:
        return as_numpy(self._logits)

    def logits_of(self, passages: Sequence[Passage]) -> NDArray[np.float32]:
        found = []
        for passage in one_by_one(passages):
            rows = self.model(mx.array([passage.ids]), cache=make_prompt_cache(self.model))
            found.append(as_numpy(rows[0, passage.first :]))
        return np.concatenate(found)

    def replies(self, prompts: Sequence[list[int]], tokens: int) -> list[list[int]]:
        return [replied(self, prompt, tokens) for prompt in prompts]

    def stream(self, passage: Passage) -> Iterator[NDArray[np.float32]]:
        cache = make_prompt_cache(self.model)
        for start in range(0, len(passage.ids), STEP):
            rows = self.model(mx.array([passage.ids[start : start + STEP]]), cache=cache)[0]
            mx.eval([layer.state for layer in cache])
            if (wanted := rows[max(passage.first - start, 0) :]).shape[0]:
                yield as_numpy(wanted)

    def _process(self, ids: list[int]) -> mx.array:
        if self.seen + len(ids) > self.context:
            raise LabError(f"the context of {self.context} tokens is full; raise 'context'")
        self.seen += len(ids)
        rows: mx.array = self.model(mx.array([ids]), cache=self.cache)[0]
        return rows

    def _tokenizer(self) -> Any:
        if self.tokenizer is None:
            self.tokenizer = AutoTokenizer.from_pretrained(
                self.weights, local_files_only=True, trust_remote_code=False
            )
        return self.tokenizer


def window_of(config: dict[str, Any]) -> int | None:
    """The tokens that a layer sees, where a config says that one does not see all before."""
    kinds = config.get("layer_types")
    slides = "sliding_attention" in kinds if kinds else config.get("use_sliding_window", True)
    return config.get("sliding_window") if slides else None


def as_numpy(values: mx.array) -> NDArray[np.float32]:
    return np.array(values.astype(mx.float32))


RUNTIME = Mlx
