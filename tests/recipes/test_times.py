"""What types cost in time, and recipes that are bound by it, on a tiny model.

Times are taken for real where no test hangs on their values; elsewhere a machine is made up, which
takes a time for each tensor by its type.
"""

import argparse
from collections.abc import Callable
from math import prod
from pathlib import Path

import pytest

from minillm_lab.header import read_gguf
from minillm_lab.jobs.errors import LabError
from minillm_lab.models import imatrix as matrices
from minillm_lab.models.quantize import Quantizer
from minillm_lab.recipe import JUST
from minillm_lab.recipes import assignment
from minillm_lab.recipes import times as module
from minillm_lab.recipes.assignment import recipe
from minillm_lab.recipes.sensitivity import Text, search
from minillm_lab.recipes.shapes import Pace, Sensitivity
from minillm_lab.recipes.times import Bound, Turns, times
from minillm_lab.records import write_record

TYPES = ("Q8_0", "Q5_0", "Q4_0")
CALIBRATION = Path(matrices.__file__).parent / "calibration.txt"
TEXT = CALIBRATION.read_text()
SPEED = {"F16": 2.0, "Q8_0": 1.0, "Q5_0": 1.4, "Q4_0": 0.7}  # times for a weight


@pytest.fixture(scope="module")
def found(tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Sensitivity:
    kept = tmp_path_factory.mktemp("search") / "measured"
    return search(tiny_gguf, None, TEXT, "a text", TYPES, 60.0, 1, kept)


def time_of(file: Path, beyond: float = 1.0) -> float:
    """A file's time on the machine; ``beyond``: times that if it mixes quantized types."""
    matrices = [t for t in read_gguf(file).tensors if t.type in SPEED]
    quantized = {t.type for t in matrices} - {"F16"}
    whole = sum(prod(t.shape) * SPEED[t.type] for t in matrices if t.name != "token_embd.weight")
    return whole * (beyond if len(quantized) > 1 else 1)


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes the machine up, whose prompts take the time of decoding."""

    def make(beyond: float = 1.0) -> None:
        def pace(self: Turns) -> Pace:
            over = time_of(self.files[0], beyond) / time_of(self.files[1], beyond)
            return Pace(decode=over, prefill=over, seconds=1e-9 * time_of(self.files[0], beyond))

        monkeypatch.setattr(Turns, "pace", pace)

    return make


def taken_from_now(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that take turns from now on."""
    taken, pace = list[Path](), Turns.pace
    monkeypatch.setattr(Turns, "pace", lambda self: taken.append(self.files[0]) or pace(self))
    return taken


def test_every_group_has_a_time_in_each_of_its_types(
    found: Sensitivity, tiny_gguf: Path, tmp_path: Path
) -> None:
    timed = times(tiny_gguf, None, found.groups, TEXT, 1, tmp_path / "measured")
    assert timed.threads == 1
    bound = Bound(timed, tiny_gguf, 1e9, TEXT, 1)
    for costs, group in zip(bound.costs("decode", found.groups), found.groups, strict=True):
        assert costs.keys() == group.types.keys() and all(cost > -1 for cost in costs.values())
    rows = {t.name: t.shape[0] for t in read_gguf(tiny_gguf).tensors}
    assert all(
        len({rows[name] for name in each.tensors}) == 1 and {*each.types} == {*TYPES}
        for each in timed.alike
    )
    assert [*tmp_path.iterdir()] == [tmp_path / "measured"]


def test_what_was_timed_before_a_kill_is_not_timed_again(
    found: Sensitivity,
    tiny_gguf: Path,
    tmp_path: Path,
    made_up: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made_up()
    kept = tmp_path / "measured"
    first = times(tiny_gguf, None, found.groups, TEXT, 1, kept)
    lines = kept.read_text().splitlines()
    kept.write_text("\n".join(lines[:-2]) + "\n" + lines[-2][:10])  # killed while it wrote
    taken = taken_from_now(monkeypatch)
    again = times(tiny_gguf, None, found.groups, TEXT, 1, kept)
    assert len(taken) == 2 and again.alike[0] == first.alike[0]
    times(tiny_gguf, None, found.groups, TEXT, 2, kept)
    assert len(taken) == 2 + len(lines) - 1  # with other threads it is all taken anew


def test_sums_of_costs_are_the_times_of_whole_files(
    found: Sensitivity, tiny_gguf: Path, tmp_path: Path, made_up: Callable[..., None]
) -> None:
    made_up()
    timed = times(tiny_gguf, None, found.groups, TEXT, 1, tmp_path / "measured")
    bound = Bound(timed, tiny_gguf, 1e9, TEXT, 1)
    whole = sum(costs["Q4_0"] for costs in bound.costs("decode", found.groups))
    quantized = sum(g.weights for g in found.groups if g.tensors != ["token_embd.weight"])
    expected = quantized * (SPEED["Q4_0"] - SPEED["F16"]) / time_of(tiny_gguf)
    assert whole == pytest.approx(expected)


@pytest.mark.parametrize("beyond", [1.0, 1.05])
def test_a_recipe_is_as_fast_as_the_file_that_it_names_where_times_do_not_add_up_too(
    beyond: float,
    found: Sensitivity,
    tiny_gguf: Path,
    tmp_path: Path,
    made_up: Callable[..., None],
) -> None:
    made_up(beyond)
    timed = times(tiny_gguf, None, found.groups, TEXT, 1, tmp_path / "measured")
    as_fast_as = tmp_path / "other.gguf"
    scratch = tmp_path / "scratch"
    other = recipe(tiny_gguf, None, found, TEXT, None, ("Q8_0",), 1, scratch)
    write(tiny_gguf, other.tensors, as_fast_as)
    size = round(0.8 * other.bytes)
    free = recipe(tiny_gguf, None, found, TEXT, size, TYPES, 1, scratch)
    bound = Bound(timed, tiny_gguf, as_fast_as, TEXT, 1)
    made = recipe(tiny_gguf, None, found, TEXT, size, TYPES, 1, scratch, bound)
    file = tmp_path / "made.gguf"
    write(tiny_gguf, made.tensors, file)
    assert time_of(file, beyond) <= JUST * time_of(as_fast_as, beyond) and made.bytes <= size
    assert made.time == "the time of other.gguf"
    write(tiny_gguf, free.tensors, file)
    assert time_of(file, beyond) > JUST * time_of(
        as_fast_as, beyond
    )  # so the bound changed something
    assert (beyond == 1) == made.candidates[0].in_time


def write(weights: Path, tensors: dict[str, str], file: Path) -> None:
    Quantizer(weights, "Q8_0", None, tensors).write(file)


def test_a_time_that_no_types_reach_is_one_line(
    found: Sensitivity, tiny_gguf: Path, tmp_path: Path, made_up: Callable[..., None]
) -> None:
    made_up()
    timed = times(tiny_gguf, None, found.groups, TEXT, 1, tmp_path / "measured")
    fastest = 1e-9 * time_of(tiny_gguf) * SPEED["Q4_0"] / SPEED["F16"]
    bound = Bound(timed, tiny_gguf, 0.5 * fastest, TEXT, 1)
    said = r"no file was found that takes [\d.e-]+ ms a token: the fastest takes 2 times as long"
    with pytest.raises(LabError, match=f"{said}; name a longer time, or more types") as error:
        recipe(tiny_gguf, None, found, TEXT, None, TYPES, 1, tmp_path / "scratch", bound)
    assert "\n" not in str(error.value)
    as_fast_as = tmp_path / "other.gguf"
    fast = dict.fromkeys([name for g in found.groups for name in g.tensors], "Q4_0")
    write(tiny_gguf, fast, as_fast_as)
    bound = Bound(timed, tiny_gguf, as_fast_as, TEXT, 1)
    size = tiny_gguf.stat().st_size
    with pytest.raises(LabError, match="name a larger size, a slower variant, or more types"):
        recipe(tiny_gguf, None, found, TEXT, size, ("Q8_0",), 1, tmp_path / "scratch", bound)


def test_a_file_that_is_faster_than_its_sum_is_followed_by_a_better_one_of_more_time(
    found: Sensitivity, tiny_gguf: Path, tmp_path: Path, made_up: Callable[..., None]
) -> None:
    made_up(beyond=0.8)
    timed = times(tiny_gguf, None, found.groups, TEXT, 1, tmp_path / "measured")
    allowed = 1e-9 * time_of(tiny_gguf) * SPEED["Q4_0"] / SPEED["F16"] * 1.1
    bound = Bound(timed, tiny_gguf, allowed, TEXT, 1)
    made = recipe(tiny_gguf, None, found, TEXT, None, TYPES, 1, tmp_path / "scratch", bound)
    first, second = made.candidates[:2]
    assert first.in_time and first.times["decode"] < 0.95
    assert second.predicted < first.predicted
    assert first.times["decode"] < second.times["decode"]


@pytest.mark.parametrize("beyond", [0.5, 2.0])
def test_a_file_that_is_predicted_too_slow_is_tried_before_it_is_refused(
    beyond: float,
    found: Sensitivity,
    tiny_gguf: Path,
    tmp_path: Path,
    made_up: Callable[..., None],
) -> None:
    """The times of types are noisy: the only file there is may be as fast as itself."""
    made_up()
    timed = times(tiny_gguf, None, found.groups, TEXT, 1, tmp_path / "measured")
    for each in timed.alike:
        for type_, pace in each.types.items():
            off = {"decode": beyond * pace.decode, "prefill": beyond * pace.prefill}
            each.types[type_] = pace.model_copy(update=off)
    as_fast_as = tmp_path / "other.gguf"
    scratch = tmp_path / "scratch"
    same = recipe(tiny_gguf, None, found, TEXT, None, ("Q8_0",), 1, scratch)
    write(tiny_gguf, same.tensors, as_fast_as)
    bound = Bound(timed, tiny_gguf, as_fast_as, TEXT, 1)
    made = recipe(tiny_gguf, None, found, TEXT, None, ("Q8_0",), 1, scratch, bound)
    assert made.tensors == same.tensors and len(made.candidates) == 1


def test_times_of_another_number_of_threads_are_refused(
    found: Sensitivity,
    tiny_gguf: Path,
    tmp_path: Path,
    made_up: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """``auto`` is as many as there are, and there may be fewer the next time."""
    made_up()
    timed = times(tiny_gguf, None, found.groups, TEXT, 2, tmp_path / "measured")
    write_record(tmp_path / "times.json", timed)
    asked = {"size": None, "size_of": None, "bits_per_weight": None, "threads": 1}
    asked |= {"text": CALIBRATION, "times": tmp_path / "times.json"}
    with pytest.raises(LabError, match="with 2 threads, and now there are 1; delete it") as error:
        assignment.main(argparse.Namespace(**asked))
    assert "\n" not in str(error.value) and "times.json" in str(error.value)
    taken = taken_from_now(monkeypatch)
    monkeypatch.setattr(module, "physical_cores", lambda: 2)
    times(tiny_gguf, None, found.groups, TEXT, "auto", tmp_path / "measured")
    assert not taken
    monkeypatch.setattr(module, "physical_cores", lambda: 1)
    times(tiny_gguf, None, found.groups, TEXT, "auto", tmp_path / "measured")
    assert taken


def test_times_are_taken_again_where_their_file_was_deleted(
    found: Sensitivity,
    tiny_gguf: Path,
    tmp_path: Path,
    made_up: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made_up()
    write_record(tmp_path / "sensitivity.json", found)
    output = tmp_path / "times.json"
    asked = argparse.Namespace(
        weights=tiny_gguf,
        imatrix=None,
        sensitivity=tmp_path / "sensitivity.json",
        text=CALIBRATION,
        threads=1,
        output=output,
    )
    module.main(asked)
    assert {*tmp_path.iterdir()} == {tmp_path / "sensitivity.json", output}
    taken = taken_from_now(monkeypatch)
    output.unlink()
    module.main(asked)
    assert taken and output.exists()


def test_an_embedding_from_which_no_output_is_computed_takes_no_time(
    found: Sensitivity, tiny_gguf: Path, tmp_path: Path, made_up: Callable[..., None]
) -> None:
    made_up()
    timed = times(tiny_gguf, None, found.groups, TEXT, 1, tmp_path / "measured")
    names = {name for each in timed.alike for name in each.tensors}
    assert "output.weight" in names and "token_embd.weight" not in names
    bound = Bound(timed, tiny_gguf, 1e9, TEXT, 1)
    (at,) = [i for i, g in enumerate(found.groups) if g.tensors == ["token_embd.weight"]]
    assert {*bound.costs("decode", found.groups)[at].values()} == {0.0}


@pytest.mark.parametrize(
    ("second", "taken"),
    [
        ([0.9, 1.09, 0.9, 1.09], 0),  # a little less in the mean, and by chance among chunks
        ([0.9, 0.91, 0.9, 0.91], 1),
        ([0.9], 0),  # one chunk tells nothing of chance
        ([1.1, 1.1, 1.1, 1.1], 0),
    ],
)
def test_a_recipe_is_the_first_candidate_unless_another_loses_less_than_by_chance(
    second: list[float],
    taken: int,
    found: Sensitivity,
    tiny_gguf: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scored = list[Path]()

    def losses(self: Text, weights: Path) -> list[float]:
        scored.append(weights)
        return second if len(scored) == 2 else [1.0] * len(second)

    monkeypatch.setattr(Text, "losses", losses)
    size = sum(g.types["Q5_0"].bytes for g in found.groups) + 20_000
    made = recipe(tiny_gguf, None, found, TEXT, size, TYPES, 1, tmp_path / "scratch")
    assert len(made.candidates) > 1
    assert made.measured == made.candidates[taken].measured
    assert made.predicted == made.candidates[taken].predicted


def test_two_files_that_do_not_fit_into_memory_together_are_one_line(
    found: Sensitivity, tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "memory_limit", lambda: tiny_gguf.stat().st_size + 1)
    with pytest.raises(LabError, match="do not fit into memory together: they need") as error:
        times(tiny_gguf, None, found.groups, TEXT, 1, tmp_path / "measured")
    assert "\n" not in str(error.value)
