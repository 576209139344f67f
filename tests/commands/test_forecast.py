"""The time an experiment will take: by this machine's own speeds where there are any."""

from pathlib import Path
from typing import Any

import pytest

from builders import STEADY, around, made_up
from minillm_lab.commands import forecast
from minillm_lab.commands.forecast import Rates
from minillm_lab.experiment.config import load_experiment
from minillm_lab.experiment.plan import Plan

VARIANTS = {
    "fp16": {"runtime": "transformers", "dtype": "float16"},
    "q8": {"runtime": "llama.cpp", "quantization": "Q8_0"},
    "q4": {"runtime": "llama.cpp", "quantization": "Q4_K_M"},
}
RATES = Rates(
    decode=dict.fromkeys(("float16", "float32", "unquantized", "quantized"), 1e10),
    prefill=dict.fromkeys(("float16", "float32", "unquantized", "quantized"), 2e11),
    measured=True,
)


def plan(**more: Any) -> Plan:
    config = {
        "model": "m",
        "models": {"m": {"path": "/data/m"}},
        "variants": VARIANTS,
        "baseline": "fp16",
        "prompt": "Why?",
    }
    return Plan(load_experiment(config | more), "")


def seconds(plan: Plan, size: float = 1e9, rates: Rates = RATES) -> dict[str, float]:
    return forecast.seconds(plan, lambda model, form: size, [], rates)


@pytest.mark.parametrize(("key", "part"), [("trials", "trials"), ("rounds", "rounds")])
def test_twice_as_many_take_twice_as_long(key: str, part: str) -> None:
    once, twice = (seconds(plan(**{key: n})) for n in (3, 6))
    assert twice[part] == pytest.approx(2 * once[part])
    assert {k: v for k, v in once.items() if k != part} == {
        k: v for k, v in twice.items() if k != part
    }


def test_what_a_larger_model_takes_grows_and_its_trials_stay_short() -> None:
    small, large = (seconds(plan(), size) for size in (1e8, 1e10))
    assert large["rounds"] > 10 * small["rounds"] and large["quality"] > 10 * small["quality"]
    assert large["trials"] / (6 * 2) < 200  # some three minutes each, of a second a token


def test_a_token_takes_a_while_however_few_the_weights() -> None:
    """Without it a forecast counted millions of slices of a trial, one by one."""
    settings = plan().variant("q4")
    assert forecast.speeds(settings, 700, 350, RATES).token == forecast.TOKEN
    assert forecast.speeds(settings, 1e9, 5e8, RATES).token == pytest.approx(0.1)


def test_where_float16_is_slow_rounds_take_longer_and_scores_do_not() -> None:
    slow = Rates(RATES.decode, RATES.prefill | {"float16": 2e9, "float32": 2e9}, measured=True)
    usual, found = seconds(plan()), seconds(plan(), rates=slow)
    assert found["rounds"] > 2 * usual["rounds"]
    assert usual["quality"] < found["quality"] < 1.5 * usual["quality"]


def test_without_quality_it_takes_none() -> None:
    assert seconds(plan(quality=None))["quality"] == 0


def test_a_reference_takes_time_unless_it_was_made_elsewhere() -> None:
    """A model's own counts as one of all does; here each takes ten times a variant's size."""

    def quality(**references: Any) -> float:
        models = {m: {"path": f"/data/{m}"} for m in ("m", "n")}
        for name, reference in references.items():
            models[name]["reference"] = reference
        variants = VARIANTS | {"n": {"runtime": "llama.cpp", "quantization": "Q8_0", "model": "n"}}
        experiment = plan(models=models, variants=variants)
        return forecast.seconds(
            experiment, lambda _, form: 1e10 if form == "float32" else 1e9, [], RATES
        )["quality"]

    far, hub = {"file": "r.npz"}, {"repository": "a/b", "revision": "0" * 40, "file": "r.npz"}
    all_, one = quality(), quality(n=far)
    none = quality(m={"hub": hub | {"sha256": "a" * 64}}, n=far)
    assert none == quality(m=far, n=far) > 0
    assert all_ - one == pytest.approx(one - none) and one - none > 10
    assert none < quality(m=far, n="n") < one  # a variant is smaller than float32


def result(folder: Path, name: str, machine: str, speed: float, **more: Any) -> None:
    made = made_up(name, decode=around(speed), machine=machine, **more)
    metrics = made.metrics | {
        "prefill_tokens_per_second_at_512": made.metrics["prefill_tokens_per_second"]
    }
    made = made.model_copy(update={"metrics": metrics})
    (folder / f"{name}.json").write_text(made.model_dump_json())


def test_the_rates_are_those_of_results_of_this_machine_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forecast, "read_once", lambda threads: STEADY)
    result(tmp_path, "q8", "here", 20.0)
    result(tmp_path, "q4", "elsewhere", 999.0, quantization="Q4_K_M")
    result(tmp_path, "cuda", "here", 999.0, backend="CUDA")
    (tmp_path / "comparison.json").write_text("{}")
    mine = forecast.measured_here(tmp_path, "here")
    assert [r.variant for r in mine] == ["q8"]
    found = forecast.rates(mine, 2)
    assert found.measured and found.decode["quantized"] == pytest.approx(20.0 * 10**8, rel=1e-3)
    assert not forecast.rates([], 2).measured
    stated = forecast.rates([], 2).decode["quantized"]
    assert stated == forecast.DECODE["quantized"] * STEADY.memory_bytes_per_second
