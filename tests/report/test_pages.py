"""The report's pages: what a cell says and sorts by. In a browser: test_report.py."""

from builders import compared, made_up
from minillm_lab.records import QualityMetric
from minillm_lab.report.pages import summary
from minillm_lab.result import Metric


def test_the_interval_behind_a_cell_is_in_the_unit_of_its_column() -> None:
    result = made_up("q8_0")
    measured = {"memory_peak_bytes": (2.5e8, "B"), "first_token_seconds": (0.05, "s")}
    measured |= {"memory_after_generation_bytes": (2.5e10, "B")}
    for name, (value, unit) in measured.items():
        ends = (0.9 * value, 1.1 * value)
        result.metrics[name] = Metric(value=value, unit=unit, ci95=ends, n=3, samples=[])
    top = QualityMetric(value=0.94, unit="1", ci95=(0.93, 0.95), n=99)
    result.quality = {"same_top": top}
    (rows,) = summary(compared(result, made_up("fp16")))["machines"].values()
    cells = {c["metric"]: c for row in rows if row["variant"] == "q8_0" for c in row["cells"]}
    for name, shown in {
        "memory_peak_bytes": ("250", "95 % from 225 to 275"),
        "same_top": ("94.0", "95 % from 93 to 95"),
        "memory_after_generation_bytes": ("25000", "95 % from 22500 to 27500"),
    }.items():
        assert (cells[name]["text"], cells[name]["interval"]) == shown
    low, high = (float(x) for x in cells["first_token_seconds"]["interval"].split()[3::2])
    assert low <= float(cells["first_token_seconds"]["text"]) <= high
