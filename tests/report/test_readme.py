"""The section between two markers is the workflow's; everything else is the author's."""

from pathlib import Path

import pytest

from builders import around, compared, made_up
from minillm_lab.jobs.errors import LabError
from minillm_lab.records import QualityMetric
from minillm_lab.report.front import front
from minillm_lab.report.page import BEGIN, END
from minillm_lab.report.readme import details, experiment, update
from minillm_lab.result import Result

PAGE = f"# Mine\r\n\n  odd spacing \t\n{BEGIN}\nold\n{END}\nafter, no newline at the end — ñ"


def test_everything_outside_the_markers_stays_byte_for_byte(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_bytes(PAGE.encode())
    assert update(page, "new") is False
    text = page.read_bytes().decode()
    assert text.split(BEGIN)[0] == PAGE.split(BEGIN)[0]
    assert text.split(END)[1] == PAGE.split(END)[1]
    assert "new" in text and "old" not in text


def test_a_current_page_is_not_written(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_bytes(PAGE.encode())
    update(page, "new")
    page.chmod(0o444)
    before = page.stat().st_mtime_ns
    assert update(page, "new") is True
    assert page.stat().st_mtime_ns == before


def test_check_writes_nothing(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_bytes(PAGE.encode())
    assert update(page, "new", check=True) is False
    assert page.read_bytes() == PAGE.encode()


@pytest.mark.parametrize("page", ["", BEGIN, END, f"{END}\n{BEGIN}", f"{BEGIN}\n{BEGIN}\n{END}"])
def test_a_page_without_its_markers_is_refused_and_kept(page: str, tmp_path: Path) -> None:
    file = tmp_path / "README.md"
    file.write_text(page)
    with pytest.raises(LabError, match=r"README\.md: needs these two lines"):
        update(file, "new")
    assert file.read_text() == page


def test_a_page_that_does_not_exist_is_begun(tmp_path: Path) -> None:
    update(tmp_path / "new.md", "text")
    assert update(tmp_path / "new.md", "text") is True


def test_the_section_begins_with_what_to_take() -> None:
    comparison = compared(made_up("f16"), made_up("q4", decode=[[30.0, 30.0]] * 3))
    first = front(comparison, Path("README.md")).splitlines()[0]
    assert first.startswith("**Recommended**")
    assert "**`q4`** decodes 30.0 tokens per second (×3.00)" in first


def test_an_answer_cannot_leave_its_fence() -> None:
    answer = f"```\n{END}\n# owned\n````\n| a | b |\n<script>"
    text = details(compared(made_up("q4", answer=answer)))
    assert "`````text" in text
    assert END not in text  # else the next update would find two ends


def test_a_load_that_was_not_measured_is_left_out() -> None:
    blind = made_up("q4")
    told = {}
    for how in ("warm", "cold"):
        metric = blind.metrics[f"load_{how}_seconds"]
        metric.value, metric.ci95, metric.n, metric.samples = None, None, 0, []
        told[how] = experiment(blind)
    assert "Load 1.00 s cold; memory" in told["warm"]
    assert "Load not measured; memory" in told["cold"]
    assert front(compared(made_up("f16"), blind), Path("README.md"))


def loaded(name: str, seconds: list[float], decode: float = 10.0) -> Result:
    """A result whose loads, cold and warm, took so long, a round each."""
    result = made_up(name, decode=around(decode))
    for how in ("cold", "warm"):
        of_rounds = {"samples": [[s] for s in seconds], "n": len(seconds)}
        value = {"value": sorted(seconds)[len(seconds) // 2], "ci95": None}
        metric = result.metrics[f"load_{how}_seconds"]
        result.metrics[f"load_{how}_seconds"] = metric.model_copy(update=of_rounds | value)
    result.round_times = ["2026-01-01T00:00:00+00:00"] * len(seconds)
    result.protocol["rounds"] = len(seconds)
    return result


def row(text: str, label: str) -> list[str]:
    """The cells of a table's row."""
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {label}")]
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


@pytest.mark.parametrize("rounds", [[[0.31], [0.10]], [[0.25, 0.31], [0.08, 0.10]]])
def test_loads_are_not_ranked_where_a_factor_of_two_would_be_a_tie(
    rounds: list[list[float]],
) -> None:
    """Who reads 0.31 and 0.10 s in bold takes them for equal."""
    found = compared(loaded("fp16", rounds[0]), loaded("q4", rounds[1]))
    page, every = front(found, Path("README.md")), details(found)
    assert row(page, "[Load, cold · warm]") == ["0.31 · 0.31", "0.10 · 0.10"]
    assert row(every, "Load, cold cache") == row(every, "Load, warm cache") == ["0.31", "0.10"]
    told = "one round" if len(rounds[0]) == 1 else "2 rounds"
    for text in (page, every):
        assert f"Loads are not ranked: with {told}, no test tells a factor of two" in text


def test_loads_are_ranked_where_rounds_tell_them_apart() -> None:
    level = [0.97, 1.0, 1.03, 1.01, 0.99, 1.0, 1.02, 0.98]
    found = compared(
        loaded("fp16", [0.31 * x for x in level]), loaded("q4", [0.10 * x for x in reversed(level)])
    )
    page, every = front(found, Path("README.md")), details(found)
    assert row(page, "[Load, cold · warm]") == ["0.31 · 0.31", "**0.10** · **0.10**"]
    assert row(every, "Load, cold cache")[1].startswith("**0.10** (×0.32)")
    assert "not ranked" not in page + every


def test_what_a_machine_and_a_warning_say_stays_text() -> None:
    hostile = "<script>a|b`c\n# x"
    result = made_up("f16")
    result.machine |= {"cpu": hostile, "os": hostile}
    result.warnings = [hostile]
    page = details(compared(result))
    assert "<script>" not in page and "\n# x" not in page
    assert page.count("script\\>a\\|b") == 3


def test_a_text_of_two_chunks_is_said_to_give_no_intervals() -> None:
    result = made_up("f16")
    result.quality = {
        name: QualityMetric(value=0.5, unit="1", ci95=None, n=100)
        for name in ("kld_mean", "same_top")
    }
    runtime = {"name": "llama.cpp", "settings": {}}
    for chunks in (2, 3):
        result.protocol["quality"] = {
            "context": 64, "chunks": chunks, "reference": {"runtime": runtime}
        }  # fmt: skip
        page = details(compared(result))
        assert ("no intervals, which need 3 chunks" in page) == (chunks == 2)
