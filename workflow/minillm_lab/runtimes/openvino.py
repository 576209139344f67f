"""A model that is converted from safetensors, in OpenVINO on the CPU.

``models/pack_openvino.py`` makes the folder. The model's inputs are the new tokens, their places,
a mask over all tokens so far, and which of the new tokens' logits are wanted; the cache of keys and
values is a state of the model.
"""

from collections.abc import Iterator, Sequence
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minillm_lab.jobs.errors import LabError, first_line
from minillm_lab.jobs.files import OPENVINO
from minillm_lab.runtimes import (
    STEP,
    Options,
    Passage,
    decoded,
    one_by_one,
    replied,
    wanted_before,
)
from minillm_lab.runtimes.openvino_library import openvino
from minillm_lab.runtimes.tokens import Tokenizer

MODEL, WEIGHTS = OPENVINO
PAGE = 4096  # bytes
PROPERTIES = {  # of Options: as OpenVINO names it
    "precision": "INFERENCE_PRECISION_HINT",
    "kv_cache": "KV_CACHE_PRECISION",
    "dynamic_quantization": "DYNAMIC_QUANTIZATION_GROUP_SIZE",
}
OF_WEIGHTS_ALONE = {"precision": "f32", "kv_cache": "f32", "dynamic_quantization": 0}


class OpenVino:
    """A folder of ``openvino_model.xml``, its weights and a tokenizer."""

    def __init__(self) -> None:
        self.core: Any = None
        self.compiled: Any = None
        self.request: Any = None
        self.settings: dict[str, Any] = {}
        self.place = 0

    def prepare(self, weights: Path, options: Options) -> None:
        self.core = openvino.Core()
        self.core.get_property("CPU", "FULL_DEVICE_NAME")  # loads what runs on the CPU

    def load(self, weights: Path, options: Options) -> None:
        if self.core is None:
            self.prepare(weights, options)
        self._check(weights, options)
        chosen = {key: getattr(options, key) for key in PROPERTIES}
        properties = {
            "INFERENCE_NUM_THREADS": options.threads,
            "NUM_STREAMS": 1,
            **{PROPERTIES[k]: str(v) for k, v in chosen.items() if v != "auto"},
        }
        try:
            model = self.core.read_model(weights / MODEL)
            self.compiled = self.core.compile_model(model, "CPU", properties)
        except Exception as error:  # the library raises errors of every kind for a broken file
            raise LabError(f"{weights}: OpenVINO cannot load it: {first_line(error)}") from error
        self.request = self.compiled.create_infer_request()
        np.memmap(weights / WEIGHTS, np.uint8, "r")[::PAGE].sum()  # a load reads every weight
        self.tokenizer, self.context = Tokenizer(weights), options.context
        self.mask = np.ones((1, options.context), np.int64)
        self.threads = int(self.compiled.get_property("INFERENCE_NUM_THREADS"))
        found = {key: self.compiled.get_property(name) for key, name in PROPERTIES.items()}
        self.settings = {
            "context": options.context,
            "dtype": found["precision"].get_type_name(),
            "precision": found["precision"].get_type_name(),
            "kv_cache": found["kv_cache"].get_type_name(),
            "dynamic_quantization": int(found["dynamic_quantization"]),
            "execution_mode": self.compiled.get_property("EXECUTION_MODE_HINT").name.lower(),
            "pinned": bool(self.compiled.get_property("ENABLE_CPU_PINNING")),
            "chosen": [key for key, own in OF_WEIGHTS_ALONE.items() if chosen[key] != own],
            "build": openvino.get_version(),
        }
        self.decodes_alike = all(self.settings[k] == own for k, own in OF_WEIGHTS_ALONE.items())
        if not self.decodes_alike:
            self.settings["scored_by"] = "decoding"
        self.clear()

    def _check(self, weights: Path, options: Options) -> None:
        """Raise LabError where OpenVINO would end the process: it divides by zero."""
        bfloat16 = "BF16" in self.core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        plain = weights.name.endswith("-unquantized")
        if plain and options.precision != "f32" and bfloat16 and options.threads == 1:
            raise LabError(
                "OpenVINO cannot compute unquantized weights in bf16 with one thread;"
                " take precision: f32, or more threads"
            )

    def unload(self) -> None:
        self.request = self.compiled = None

    def facts(self) -> dict[str, Any]:
        return {
            "backend": "CPU",
            "device": "CPU",
            "threads": self.threads,
            "settings": self.settings,
        }

    def accelerator_memory_peak(self) -> int | None:
        return None

    def tokenize(self, text: str, plain: bool) -> list[int]:
        return self.tokenizer.tokenize(text, plain)

    def detokenize(self, ids: list[int]) -> str:
        return self.tokenizer.detokenize(ids)

    def clear(self) -> None:
        self.request.reset_state()
        self.place = 0

    def prefill(self, ids: list[int]) -> None:
        self._process(ids, [len(ids) - 1])

    def decode(self, token: int) -> None:
        self._process([token], [0])

    def logits(self) -> NDArray[np.float32]:
        row: NDArray[np.float32] = self._rows()[-1]
        return row

    def logits_of(self, passages: Sequence[Passage]) -> NDArray[np.float32]:
        if not self.decodes_alike:
            return np.concatenate([row.copy() for one in passages for row in decoded(self, one)])
        found = []
        for passage in one_by_one(passages):
            self.clear()
            self._process(passage.ids, range(passage.first, len(passage.ids)))
            found.append(self._rows().copy())
        return np.concatenate(found)

    def replies(self, prompts: Sequence[list[int]], tokens: int) -> list[list[int]]:
        return [replied(self, prompt, tokens) for prompt in prompts]

    def stream(self, passage: Passage) -> Iterator[NDArray[np.float32]]:
        if not self.decodes_alike:
            rows = (row.copy() for row in decoded(self, passage))
            steps = ([*islice(rows, b - a)] for a, b in pairwise(wanted_before(passage)))
            yield from map(np.concatenate, filter(None, steps))
            return
        self.clear()
        for start in range(0, len(passage.ids), STEP):
            ids = passage.ids[start : start + STEP]
            wanted = range(max(passage.first - start, 0), len(ids))
            self._process(ids, wanted or [0])
            if wanted:
                yield self._rows()

    def _rows(self) -> Any:
        """The logits of the tokens that were wanted last."""
        return self.request.get_output_tensor(0).data[0]

    def _process(self, ids: Sequence[int], wanted: Sequence[int]) -> None:
        """Compute new tokens, and the logits of those at the ``wanted`` places among them."""
        end = self.place + len(ids)
        if end > self.context:
            raise LabError(f"the context of {self.context} tokens is full; raise 'context'")
        self.request.infer(
            {
                "input_ids": np.array([ids], np.int64),
                "attention_mask": self.mask[:, :end],
                "position_ids": np.arange(self.place, end, dtype=np.int64)[None],
                "logits_to_keep": np.array(wanted, np.int64),
                "beam_idx": np.zeros(1, np.int32),
            }
        )
        self.place = end


RUNTIME = OpenVino
