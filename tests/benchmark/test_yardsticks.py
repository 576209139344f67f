"""The yardsticks: positive, from a process of their own that is gone when they are read."""

import psutil
import pytest

from conftest import ROOT
from minillm_lab.benchmark.yardsticks import READ_BYTES, yardsticks
from minillm_lab.jobs.errors import LabError


@pytest.fixture(autouse=True)
def found_by_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "workflow"))


@pytest.mark.parametrize("threads", [1, 2])
def test_a_reading_is_positive_and_its_process_is_gone(threads: int) -> None:
    before = psutil.Process().memory_info().rss
    children = set(psutil.Process().children())
    with yardsticks(threads) as read:
        readings = [read(), read()]
        assert psutil.Process().memory_info().rss - before < READ_BYTES / 4
    print(f"threads {threads}: {readings}")  # two read more than one where two cores are free
    assert all(r.compute_flops > 0 and r.memory_bytes_per_second > 0 for r in readings)
    assert set(psutil.Process().children()) <= children


def test_a_process_that_ended_is_one_line() -> None:
    with yardsticks(1) as read:
        read()
        for child in psutil.Process().children():
            child.kill()
            child.wait()
        with pytest.raises(LabError, match="the machine's speed cannot be read"):
            read()
