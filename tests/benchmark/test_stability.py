"""Warnings say in words what makes a figure doubtful, and a quiet run has none."""

import pytest

from builders import made_up_round
from minillm_lab.benchmark.stability import instabilities

STEADY = [100.0, 101.0, 99.5]


def test_a_quiet_run_warns_of_nothing() -> None:
    assert instabilities([made_up_round(n, STEADY) for n in (1, 2, 3)]) == []


@pytest.mark.parametrize(
    "conditions, said",
    [
        ({"other_load_cores": 1.0}, "other load on the machine in 1 of 3 rounds"),
        ({"stolen_share": 0.1}, "hypervisor took up to 10%"),
        ({"frequency_change": 0.7}, "clock fell during a round, to 70%"),
        ({"governor": "powersave"}, "governor is powersave"),
        ({"on_battery": True}, "battery"),
    ],
)
def test_what_the_machine_did_is_said(conditions: dict[str, object], said: str) -> None:
    rounds = [made_up_round(1, STEADY), made_up_round(2, STEADY, **conditions)]
    (warning,) = instabilities([*rounds, made_up_round(3, STEADY)])
    assert said in warning


def test_throttling_is_told_from_spread() -> None:
    slower = [made_up_round(n, [100, 96, 92]) for n in (1, 2, 3)]
    (warning,) = instabilities(slower)
    assert "slows down within a round, to 92%" in warning
    for one in slower:
        one.warmups, one.repetitions = one.repetitions[:2], one.repetitions[2:]
    assert instabilities(slower) == [warning]  # one answer after two warm-ups


def test_spread_between_repetitions_is_said() -> None:
    (warning,) = instabilities([made_up_round(1, [100.0, 120.0, 101.0]), made_up_round(2, STEADY)])
    assert "differs by 20%" in warning
