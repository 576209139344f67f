"""ONNX Runtime GenAI: a folder that its model builder made, on the CPU."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime_genai
from numpy.typing import NDArray

from minillm_lab.jobs.errors import LabError, first_line
from minillm_lab.jobs.files import CONTENTS
from minillm_lab.runtimes import STEP, Options, Passage, one_by_one, replied
from minillm_lab.runtimes.tokens import Tokenizer

PAGE = 4096  # bytes


class Onnx:
    """A folder with an ONNX model, and the generator that holds its cache."""

    def __init__(self) -> None:
        self.model: Any = None
        self.generator: Any = None
        self.seen = 0
        self.about: dict[str, Any] = {}

    def prepare(self, weights: Path, options: Options) -> None:
        try:
            self.about = json.loads((weights / CONTENTS).read_bytes())
            config = json.loads((weights / "genai_config.json").read_bytes())
            most = config["model"]["context_length"]
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise LabError(
                f"{weights}: not a model that the lab made for ONNX Runtime GenAI; delete the"
                " folder to make it again"
            ) from error
        if options.context > most:
            raise LabError(
                f"{weights}: a context of {options.context} tokens is longer than the {most} that"
                " the model is made for, and ONNX Runtime GenAI computes no more; lower 'context'"
            )

    def load(self, weights: Path, options: Options) -> None:
        session = {"intra_op_num_threads": options.threads, "inter_op_num_threads": 1}
        try:
            config = onnxruntime_genai.Config(str(weights))
            config.overlay(json.dumps({"model": {"decoder": {"session_options": session}}}))
            self.model = onnxruntime_genai.Model(config)
        except Exception as error:  # the library raises RuntimeError for whatever is wrong
            raise LabError(
                f"{weights}: ONNX Runtime GenAI cannot load it: {first_line(error)}"
            ) from error
        self.weights, self.context = weights, options.context
        self.tokenizer = Tokenizer(weights)
        read_every_page(weights)
        self.clear()

    def unload(self) -> None:
        self.generator = self.model = None

    def facts(self) -> dict[str, Any]:
        made = {key: value for key, value in self.about.items() if key != "tensors"}
        exact = made.get("accuracy_level", 1) == 1
        return {
            "backend": "CPU",
            "device": "CPU",
            "settings": {
                "context": self.context,
                "execution_provider": "cpu",
                "activations": made["compute"] if exact else "int8",
                **made,
                **({} if exact else {"scored_by": "decoding"}),
            },
        }

    def accelerator_memory_peak(self) -> int | None:
        return None

    def tokenize(self, text: str, plain: bool) -> list[int]:
        return self.tokenizer.tokenize(text, plain)

    def detokenize(self, ids: list[int]) -> str:
        return self.tokenizer.detokenize(ids)

    def clear(self) -> None:
        self.generator = None  # its cache is freed before another is made
        parameters = onnxruntime_genai.GeneratorParams(self.model)
        parameters.set_search_options(max_length=self.context, batch_size=1)
        self.generator, self.seen = onnxruntime_genai.Generator(self.model, parameters), 0

    def prefill(self, ids: list[int]) -> None:
        self._process(ids)

    def decode(self, token: int) -> None:
        self._process([token])

    def logits(self) -> NDArray[np.float32]:
        row: NDArray[np.float32] = self.generator.get_logits().reshape(-1)
        return row

    def logits_of(self, passages: Sequence[Passage]) -> NDArray[np.float32]:
        rows = [part.copy() for passage in one_by_one(passages) for part in self.stream(passage)]
        return np.concatenate(rows)

    def replies(self, prompts: Sequence[list[int]], tokens: int) -> list[list[int]]:
        return [replied(self, prompt, tokens) for prompt in prompts]

    def stream(self, passage: Passage) -> Iterator[NDArray[np.float32]]:
        """The wanted logits, STEP tokens at a time.

        Where activations are rounded, ONNX Runtime reads many tokens with other arithmetic than it
        decodes one with. There the wanted tokens are decoded, and what is before them is read.
        """
        exact = self.about.get("accuracy_level", 1) == 1
        self.clear()
        for start in range(0, len(passage.ids), STEP):
            ids = passage.ids[start : start + STEP]
            first = max(passage.first - start, 0)
            if exact:
                self._process(ids)
                rows = self.generator.get_output("logits")[0, first:]
            else:
                if first:
                    self._process(ids[:first])
                rows = self._decoded(ids[first:])
            if len(rows):
                yield rows

    def _decoded(self, ids: list[int]) -> NDArray[np.float32]:
        """The logits of tokens that are decoded one at a time."""
        rows = []
        for token in ids:
            self.decode(token)
            rows.append(self.logits().copy())
        return np.stack(rows) if rows else np.empty((0, 0), np.float32)

    def _process(self, ids: list[int]) -> None:
        if self.seen + len(ids) > self.context:
            raise LabError(f"the context of {self.context} tokens is full; raise 'context'")
        try:
            self.generator.append_tokens(ids)
        except RuntimeError as error:  # what a model's operations refuse only when they run
            raise LabError(
                f"{self.weights}: ONNX Runtime cannot compute it: {first_line(error)}"
            ) from error
        self.seen += len(ids)


def read_every_page(weights: Path) -> None:
    """Touch every page of the weights, which ONNX Runtime maps; a load must read them all."""
    for file in weights.glob("*.onnx.data"):
        np.memmap(file, np.uint8, "r")[::PAGE].sum()


RUNTIME = Onnx
