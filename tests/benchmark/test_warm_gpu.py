"""On a GPU every length is computed once before a clock starts: its kernels are chosen then."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minillm_lab.benchmark import slices
from minillm_lab.benchmark.round import at_depth

SETTINGS = {"runtime": "llama.cpp", "device": "gpu", "threads": 1, "context": 64, "generate": 8}


class Counting:
    """A runtime that notes how many tokens are in its cache when it computes one."""

    def __init__(self, backend: str) -> None:
        self.backend, self.cached = backend, 0
        self.lengths: list[int] = []

    def prepare(self, *_: Any) -> None: ...

    def load(self, *_: Any) -> None: ...

    def facts(self) -> dict[str, Any]:
        return {"backend": self.backend}

    def clear(self) -> None:
        self.cached = 0

    def prefill(self, ids: list[int]) -> None:
        self.cached += len(ids)
        self.lengths.append(self.cached)

    def decode(self, token: int) -> None:
        self.prefill([token])

    def logits(self) -> Any:
        return np.zeros(4)


@pytest.mark.parametrize("backend", ["CPU", "CUDA"])
def test_the_whole_answer_before_the_first_slice(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = Counting(backend)
    monkeypatch.setattr(slices, "open_runtime", lambda _: runtime)
    side = slices.Slices(Path("m.gguf"), [1, 2, 3], SETTINGS)
    before = {*runtime.lengths}
    side.prefill()
    for _ in range(3):
        side.decode(3)
    timed = {*runtime.lengths} - {1}  # one token wakes the process before a slice of prefill
    assert (timed <= before) == (backend == "CUDA")
    assert before == ({3} if backend == "CPU" else {*range(3, 11)})


@pytest.mark.parametrize("on_gpu", [False, True])
def test_a_long_prompt_and_what_follows_it(on_gpu: bool) -> None:
    runtime: Any = Counting("CUDA" if on_gpu else "CPU")
    depth = at_depth(runtime, [1, 2, 3], 600)
    timed = [600, *range(601, 617)]
    assert runtime.lengths == (timed * 2 if on_gpu else [512, *timed])
    assert depth.prompt_tokens == 600 and len(depth.decode_seconds) == 16
