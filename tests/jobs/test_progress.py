"""What a person sees while it runs."""

import io
import sys

import pytest

from minillm_lab.jobs.command import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream, shown", [(Terminal(), True), (io.StringIO(), False)])
def test_a_bar_at_a_terminal_and_nothing_elsewhere(
    stream: io.StringIO, shown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    with progress("q4_k_m round 2", 4, "steps") as advance:
        advance(1, "repetition 1 of 3")
    seen = stream.getvalue()
    assert ("q4_k_m round 2" in seen and "1/4" in seen and "repetition 1 of 3" in seen) == shown
    assert shown or not seen
