"""Warnings say in words what makes a figure doubtful, and a quiet run has none."""

import pytest

from minillm_lab.benchmark.stability import instabilities
from minillm_lab.result import Conditions, Memory, Output, Repetition, Round

QUIET = {
    "other_load_cores": 0.02,
    "stolen_share": 0.0,
    "frequency_change": 1.0,
    "governor": "performance",
    "on_battery": False,
}
NOTHING = Memory(resident=0, anonymous=0, file_backed=0)


def made_up_round(number: int, speeds: list[float], **conditions: object) -> Round:
    repetitions = [
        Repetition(
            prefill_seconds=1,
            first_token_seconds=1,
            decode_seconds=[1 / s] * 10,
            generate_seconds=1 + 10 / s,
        )
        for s in speeds
    ]
    return Round(
        variant="v",
        round=number,
        measured_at="2026-01-01T00:00:00+00:00",
        machine={},
        runtime={},
        prompt_tokens=1,
        generated_tokens=11,
        load_cold_seconds=1,
        load_cold_read_bytes=1,
        load_warm_seconds=1,
        load_warm_read_bytes=0,
        memory_before_load=NOTHING,
        memory_after_load=NOTHING,
        memory_after_generation=NOTHING,
        memory_peak_bytes=0,
        accelerator_memory_peak_bytes=None,
        warmups=[],
        repetitions=repetitions,
        depths=[],
        conditions=Conditions.model_validate(QUIET | conditions),
        output=Output(text="", token_ids=[]),
        warnings=[],
    )


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


def test_spread_between_rounds_is_said() -> None:
    rounds = [made_up_round(n, [s, s, s]) for n, s in enumerate((100.0, 120.0, 101.0))]
    (warning,) = instabilities(rounds)
    assert "differs by 19%" in warning or "differs by 20%" in warning
