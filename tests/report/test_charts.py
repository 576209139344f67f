"""Charts show the JSON's figures; labels keep apart; what a model says is text everywhere."""

import json
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from builders import around, compared, made_up
from conftest import ROOT
from minillm_lab.comparison.shapes import Comparison
from minillm_lab.recipe import Recipe
from minillm_lab.records import HurtToken, Output, QualityMetric
from minillm_lab.report import CHARTS, PAGES, pages, picture, tables
from minillm_lab.report.charts import draw
from minillm_lab.report.charts.catalogue import chart
from minillm_lab.report.charts.parts import NARROW, WIDE
from minillm_lab.report.charts.placing import Axis, Box, Marker, placed
from minillm_lab.report.front import front
from minillm_lab.report.readme import details
from minillm_lab.result import Result

HOSTILE = "<script>alert(1)</script>\n| a | b |\n|---|---|\n```\n`x` \u200f\u202e <!-- --> </pre>"
EIGHT = {  # decode in t/s, divergence in nats
    "fp16": (65, 2e-5), "f16": (126, 2e-6), "q8_0": (173, 0.0046), "q6_k": (172, 0.0049),
    "q5_k_m": (165, 0.086), "q4_k_m": (170, 0.062), "q4_0-of-a-long-name": (171, 0.065),
    "q2_k": (171, 0.44),
}  # fmt: skip


def with_quality(result: Result, kld: float) -> Result:
    result.quality = {
        name: QualityMetric(value=kld * k, unit="nat", ci95=(kld * k * 0.9, kld * k * 1.1), n=4790)
        for name, k in {"kld_mean": 1.0, "kld_p99": 6.0, "kld_max": 30.0}.items()
    }
    right = QualityMetric(value=0.4, unit="1", ci95=(0.2, 0.6), n=25)
    result.quality |= {"question_accuracy": right, "question_accuracy: facts": right}
    for context in (2048, 8192):
        result.quality[f"kld_mean_at_{context}"] = result.quality["kld_mean"]
    result.quality_by_position = {"0–511": result.quality["kld_mean"]}
    return result


@pytest.fixture(scope="module")
def eight() -> Comparison:
    found = []
    for name, (decode, kld) in EIGHT.items():
        runtime = "transformers" if name == "fp16" else "llama.cpp"
        made = made_up(name, decode=around(decode), runtime=runtime, quantization=name.upper())
        made.model.quantization = "safetensors" if name == "fp16" else name.upper()
        found.append(with_quality(made, kld))
    of_group = {"weights": 100, "type": "Q8_0", "loss": 0.01, "loss_in_same": 0.02}
    found[-1].model.recipe = Recipe.model_validate(
        {"lab": "0", "size": 9, "bytes": 9, "type": "Q8_0", "tensors": {"ffn": "Q8_0"}}
        | {"predicted": 0.1, "measured": 0.1, "candidates": [], "same": "Q4_0"}
        | {"groups": [of_group | {"role": "ffn_down", "layers": [0, 1]}]}
    )
    return compared(*found)


def drawn(comparison: Comparison, name: str = "tradeoff", width: int = WIDE) -> list[Any]:
    """Every row of data that a chart's specification holds."""
    found: list[Any] = []

    def collect(part: Any) -> None:
        if isinstance(part, dict):
            found.extend(part.get("values", []) if "values" in part else [])
            part = list(part.values())
        if isinstance(part, list):
            for item in part:
                collect(item)

    collect(chart(name, comparison, width).to_dict())
    return [row for row in found if isinstance(row, dict)]


def test_the_picture_shows_the_figures_of_the_json(eight: Comparison) -> None:
    shown = {r["variant"]: r for r in drawn(eight) if "loss" in r}
    assert shown.keys() == EIGHT.keys()
    for name, result in eight.results.items():
        assert result.quality is not None
        assert shown[name]["speed"] == result.metrics["decode_tokens_per_second"].value
        assert shown[name]["loss"] == result.quality["kld_mean"].value
    assert [n for n, r in shown.items() if r["front"]] == ["f16", "q8_0"]
    assert [n for n, r in shown.items() if r["baseline"]] == ["fp16"]


def test_speeds_over_lengths_are_all_of_rounds() -> None:
    result = made_up("q8_0", decode=around(30))
    for metric, speed in {"_at_10": 20.0, "_at_512": 15.0}.items():
        of_rounds = result.metrics["decode_tokens_per_second"].model_copy(update={"value": speed})
        result.metrics[f"decode_tokens_per_second{metric}"] = of_rounds
    found = [r for r in drawn(compared(result, made_up("fp16")), "lengths") if "length" in r]
    speeds = {r["length"]: r["value"] for r in found if r["variant"] == "q8_0"}
    assert speeds == {10: 20.0, 512: 15.0}


def test_what_means_nothing_is_marked_and_not_on_the_front(eight: Comparison) -> None:
    broken = eight.model_copy(deep=True)
    broken.results["q8_0"].output.flaw = "it repeats one token"
    shown = {r["variant"]: r for r in drawn(broken) if "loss" in r}
    assert "q8_0" not in [n for n, r in shown.items() if r["front"]]
    assert [r["label"] for r in drawn(broken) if "⚠" in r.get("label", "")] == ["⚠ q8_0"]
    said = picture.described(broken, list(EIGHT))
    assert "⚠ q8_0 173 t/s" in said and said.count("its answer means nothing") == 1


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_labels_of_eight_variants_keep_apart(width: int) -> None:
    x, y = Axis(0, 190, width), Axis(1e-6, 2, 340, log=True, upwards=True)
    plot = Box(0, 0, width, 340)
    markers = [
        Marker(x.pixel(speed), y.pixel(kld), 9, 7.6 * len(name), 15)
        for name, (speed, kld) in EIGHT.items()
    ]
    boxes = placed(markers, [], plot)
    assert all(a.overlap(b) == 0 for a, b in combinations(boxes, 2))
    assert all(box.overlap(marker.box) == 0 for box in boxes for marker in markers)
    assert all(box.overlap(plot) == pytest.approx(box.area) for box in boxes)
    assert placed(markers, [], plot) == boxes


def test_an_axis_is_its_own_inverse() -> None:
    for axis in (Axis(0, 5, 100), Axis(1e-6, 1, 340, log=True, upwards=True)):
        assert axis.value(axis.pixel(0.3)) == pytest.approx(0.3)


@pytest.mark.parametrize("name", CHARTS)
def test_every_chart_is_drawn_alike_each_time(name: str, eight: Comparison) -> None:
    light = draw.svg(chart(name, eight))
    assert light == draw.svg(chart(name, eight))
    assert light != draw.svg(chart(name, eight), "dark")
    assert "q2_k" in "".join(ElementTree.fromstring(light).itertext())


@pytest.mark.parametrize("name", CHARTS)
def test_what_was_not_measured_is_said_and_not_drawn_as_zero(name: str) -> None:
    bare = [made_up("f16", quantization="F16"), made_up("q4", decode=around(20))]
    for metric in bare[1].metrics.values():
        metric.value, metric.ci95, metric.n, metric.samples = None, None, 0, []
    text = "".join(ElementTree.fromstring(draw.svg(chart(name, compared(*bare)))).itertext())
    if name in ("divergence", "contexts", "accuracy", "factors", "recipes"):
        assert "Not measured" in text
    if name == "tradeoff":
        assert (
            "Quality was not measured" in text
            and "Not drawn, since a figure is missing: q4" in text
        )
    assert not [r for r in drawn(compared(*bare), name) if r.get("variant") == "q4"]


def test_a_loss_of_zero_has_a_place_on_a_logarithmic_axis(eight: Comparison) -> None:
    same = with_quality(made_up("same", decode=around(90)), 0.0)
    row = next(r for r in drawn(compared(*eight.results.values(), same)) if "loss" in r)
    assert row["drawn"] > 0
    draw.svg(chart("tradeoff", compared(same)))


def test_machines_are_never_in_one_plot(eight: Comparison) -> None:
    elsewhere = with_quality(made_up("there", decode=around(50), machine="bbbbbbbbbbbb"), 0.1)
    spec = chart("tradeoff", compared(*eight.results.values(), elsewhere)).to_dict()
    here, there = (json.dumps(part) for part in spec["vconcat"])
    assert '"there"' not in here and '"there"' in there and '"q8_0"' not in there


def test_the_page_shows_its_picture_light_dark_and_in_words(
    eight: Comparison, tmp_path: Path
) -> None:
    page = tmp_path / "README.md"
    text = front(eight, page)
    for file in picture.pictures(page):
        assert file.relative_to(tmp_path).as_posix() in text
    assert "fp16 (baseline) 65.0 t/s" in text.split('alt="')[1].split('"')[0]
    sources = (tmp_path / "light.svg", tmp_path / "dark.svg")
    for source in sources:
        source.write_text(source.name)
    assert not picture.put(page, sources) and picture.put(page, sources)
    assert [f.read_text() for f in picture.pictures(page)] == ["light.svg", "dark.svg"]


class Text(HTMLParser):
    """The words of a page that stand outside scripts and styles, and its elements."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.elements, self.inside = "", [""], ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.inside = tag

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside not in ("script", "style"):
            self.words += data


def read(name: str, context: dict[str, Any]) -> Text:
    found = Text()
    found.feed(pages.page(name, context, ROOT / "workflow/report"))
    return found


def test_a_hostile_answer_and_name_are_text_everywhere(tmp_path: Path) -> None:
    bad = with_quality(made_up("<script>v</script>", answer="The " + HOSTILE), 0.1)
    bad.model.name, bad.warnings = "</script><b>m", ["<img src=x onerror=alert(1)>"]
    bad.machine["cpu"] = "<i>cpu</i>"
    bad.quality_by_section = {"<b>code</b>": bad.quality["kld_mean"]} if bad.quality else {}
    bad.quality_hurt_most = [
        HurtToken(
            kld=1.5, section="<b>", before="<i>", text=HOSTILE, reference="<b>", variant="<i>"
        )
    ]
    comparison = compared(bad)
    references = {bad.model.name: Output(text="The answer.", token_ids=[1])}
    contexts = {
        "summary": pages.summary(comparison),
        "charts": pages.charts(comparison, list(CHARTS)),
        "answers": pages.answers(comparison, references),
        "details": pages.details(comparison),
        "opening": pages.opening(comparison),
    }
    assert contexts.keys() == {*PAGES, "opening"}
    for name, context in contexts.items():
        page = read(name, context)
        scripts = {"summary": 1, "charts": 2}.get(name, 0)
        assert page.elements.count("script") == scripts
        assert not {"img", "i", "b"} & set(page.elements)
    shown = read("answers", contexts["answers"]).words
    assert shown.count(HOSTILE) == 2 and "<b>code</b>" in shown
    for name in CHARTS:
        tags = {e.tag.split("}")[1] for e in ElementTree.fromstring(
            draw.svg(chart(name, comparison))).iter()}  # fmt: skip
        assert not {"script", "img", "b"} & tags
    fence = "\n````text\n"
    assert HOSTILE.replace("<!--", "<! --") in details(comparison).split(fence)[1]
    assert "alert(1)</script>" not in tables.markdown(comparison)


def test_a_sentence_shows_its_code_and_bold_and_everything_else_as_it_is() -> None:
    said = pages.marked(r"**`q4`** is 2 * 3 < 7, `<i>` a\*b\_c <b>, 1 ` 2, **bold <i>**")
    assert said == (
        "<strong><code>q4</code></strong> is 2 * 3 &lt; 7, <code>&lt;i&gt;</code> a*b_c &lt;b&gt;,"
        " 1 ` 2, <strong>bold &lt;i&gt;</strong>"
    )


def test_without_quality_the_report_opens_with_no_empty_column() -> None:
    opening = pages.opening(compared(made_up("f16"), made_up("q4", decode=around(20))))
    assert [column.split(",")[0] for column in opening["columns"]] == [
        "Decode ↑", "Memory after generation ↓", "Model size ↓",
    ]  # fmt: skip
    (rows,) = opening["machines"].values()
    assert rows["q4"][0] == "20.0 (×2.00)" and all(len(cells) == 3 for cells in rows.values())


def test_where_a_variant_hurts_is_shown_beside_its_answer() -> None:
    hurt, unhurt = with_quality(made_up("q2_k"), 0.5), made_up("f16")
    hurt.quality_by_section = {"prose": QualityMetric(value=0.25, unit="nat", n=9)}
    token = HurtToken(
        kld=4.5, section="prose", before="the sea ", text="rises", reference="is", variant="of"
    )
    hurt.quality_hurt_most = [token]
    words = read("answers", pages.answers(compared(hurt, unhurt), {})).words
    for said in (
        "the loss is largest",
        "0.2500",
        "q2_k: the tokens with",
        "the sea ",
        "rises",
        "4.5",
    ):
        assert said in words
    assert "the loss is largest" not in read("answers", pages.answers(compared(unhurt), {})).words


def test_an_answer_is_marked_from_where_it_leaves_the_reference() -> None:
    said = made_up("q4", answer="The bank of a river")
    reference = {"m": Output(text="The bank of India", token_ids=[])}
    (shown,) = pages.answers(compared(said), reference)["answers"]
    assert (shown["common"], shown["own"], shown["reference"]) == (
        "The bank of ",
        "a river",
        "India",
    )
    (alone,) = pages.answers(compared(said), {})["answers"]
    assert alone["reference"] is None and alone["common"] == said.output.text
