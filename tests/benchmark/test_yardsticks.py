"""The yardsticks: positive, from a process of their own that is gone when they are read."""

import psutil
import pytest

from conftest import ROOT
from minillm_lab.benchmark import yardsticks
from minillm_lab.result import Reading


@pytest.fixture(autouse=True)
def found_by_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "workflow"))


@pytest.mark.parametrize("threads", [1, 2])
def test_a_reading_is_positive_and_its_process_is_gone(threads: int) -> None:
    before = psutil.Process().memory_info().rss
    children = set(psutil.Process().children())
    reading = Reading.model_validate(yardsticks.read(threads))
    print(f"threads {threads}: {reading}")  # two read more than one where two cores are free
    assert reading.compute_flops > 0 and reading.memory_bytes_per_second > 0
    assert set(psutil.Process().children()) <= children
    assert psutil.Process().memory_info().rss - before < yardsticks.READ_BYTES / 4
