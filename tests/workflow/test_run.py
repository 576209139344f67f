"""The workflow end to end on a tiny model, through the real snakemake."""

import copy
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from conftest import ROOT, Lab, tiny_config
from minillm_lab.report.page import BEGIN, END


@pytest.fixture
def lab(tmp_path: Path, tiny_gguf: Path) -> Lab:
    config = tiny_config(tiny_gguf, rounds=1, trials=1, repetitions=1, warmups=0)
    return Lab(tmp_path / "lab", config)


@dataclass
class Story:
    """One folder from its first command to its last, and what each of them said."""

    lab: Lab
    fresh: str  # a dry run before anything ran
    one_variant: set[str]  # the results there are after one variant was asked for
    second_variant: str
    whole: str
    again: str
    nothing_left: str  # a dry run after that
    more_trials: str  # a dry run with two more
    dag: str


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory, tiny_gguf: Path) -> Story:
    folder = tmp_path_factory.mktemp("story")
    config = tiny_config(tiny_gguf, rounds=1, trials=1, repetitions=1, warmups=0)
    lab = Lab(folder / "lab", config)
    (folder / "another disk").mkdir()
    lab.path("models").symlink_to(folder / "another disk")  # which changes nothing
    lab.path("RESULTS.md").write_text(f"mine above\n{BEGIN}\n{END}\nmine below\n")
    fresh = lab.snakemake("-n").stderr
    lab.run("results/q4_k_m.json")
    made = {str(p.relative_to(lab.path("results"))) for p in lab.path("results").rglob("*.json")}
    second, whole, again = (lab.run(*of).stderr for of in (["results/f16.json"], [], []))
    nothing = lab.snakemake("-n").stderr
    lab.config["trials"] = 3
    lab.write_config()
    more, dag = (lab.snakemake(option).stderr for option in ("-n", "--dag"))
    return Story(lab, fresh, made, second, whole, again, nothing, more, dag)


def test_one_variant_and_nothing_of_the_others(story: Story) -> None:
    of_it = {"q4_k_m.json", "rounds/q4_k_m.1.json", "trials/q4_k_m.1.json"}
    of_the_model = {"models/tiny.Q4_K_M+imatrix.json", "prompts/tiny.json"}
    assert story.one_variant == of_it | of_the_model
    result = story.lab.json("results/q4_k_m.json")
    assert result["variant"] == "q4_k_m"
    lengths = [result["protocol"]["prompt_tokens"], *story.lab.config["depths"]]
    for metric in ("prefill_tokens_per_second", "decode_tokens_per_second", "first_token_seconds"):
        assert {f"{metric}_at_{n}" for n in lengths} <= result["metrics"].keys()


def test_everything_and_then_nothing_to_do(story: Story) -> None:
    assert {"comparison.md", "comparison.csv", "comparison.json", "f16.json"} <= {
        p.name for p in story.lab.path("results").iterdir()
    }
    text = story.lab.path("RESULTS.md").read_text()
    assert text.startswith("mine above\n") and text.endswith("mine below\n")
    assert "| q4_k_m" in text
    assert "Nothing to be done" in story.again


def test_a_run_ends_with_what_to_take_and_where_to_read_on(story: Story) -> None:
    assert "\nRecommended" not in story.second_variant  # nothing is compared yet
    said = story.whole.splitlines()
    (told,) = [line for line in said if line.startswith("Recommended")]
    assert not set("`*\\") & set(told)  # text, not Markdown
    assert "README.md, RESULTS.md; minillm-lab pick answers for other limits." in said


def test_a_dry_run_ends_with_how_long_it_takes_once_such_jobs_ran(story: Story) -> None:
    fresh, again = (said.splitlines()[-1] for said in (story.fresh, story.more_trials))
    assert re.fullmatch(r"Plan: \d+ jobs\. How long they take is known after .*", fresh)
    assert "Plan:" not in story.nothing_left
    assert re.fullmatch(r"Plan: \d+ jobs, about \d+ s, by the time .*", again)
    assert "Plan:" not in story.dag


def test_jobs_say_which_memory_they_need_where_somebody_asks(lab: Lab) -> None:
    assert "mem_mb" not in lab.snakemake("-n").stdout + lab.snakemake("-n").stderr
    assert "mem_mb=" in lab.snakemake("-n", "--resources", "mem_mb=8000").stdout


def test_rounds_and_trials_of_all_variants_take_turns(lab: Lab) -> None:
    lab.config |= {"rounds": 2, "trials": 3}
    lab.config["variants"]["q8_0"] = {"runtime": "llama.cpp", "quantization": "Q8_0"}
    lab.write_config()
    lab.run("-q", "host")
    results = lab.path("results")
    files = [*results.glob("rounds/*.json"), *results.glob("trials/*.json")]
    first = results / "provisional.md"  # when all that is numbered 1 is there, and nothing more
    order = sorted([*files, first], key=lambda p: p.stat().st_mtime_ns)
    numbers = [p.name.split(".")[-2] if p != first else "first" for p in order]
    assert numbers == [*["1"] * 5, "first", *["2"] * 5, *["3"] * 2]
    assert not list(results.glob("trials/f16.*"))  # the baseline is in every other's
    assert all(f"| {variant} " in first.read_text() for variant in lab.config["variants"])


def test_a_broken_variant_does_not_take_the_others_down(lab: Lab, tiny_gguf: Path) -> None:
    """It is in the table with its reason, the status is not zero, and no trace of it stays."""
    whole = tiny_gguf.read_bytes()
    lab.path("broken.F16.gguf").write_bytes(whole[: len(whole) // 2])
    good = lab.config["variants"]
    lab.config["models"]["broken"] = {"path": "broken.F16.gguf"}
    lab.config["variants"] = good | {
        "bad": {"runtime": "llama.cpp", "quantization": "F16", "model": "broken"},
        "unmade": {"runtime": "llama.cpp", "quantization": "Q8_0", "model": "broken"},
    }
    lab.write_config()
    done = lab.snakemake("--cores", "1", ok=False)
    assert "failed: bad: fetch_gguf: broken.F16.gguf: not a GGUF file" in done.stderr
    assert not lab.path("results/bad.json").exists()
    for page in ("RESULTS.md", "results/comparison.md"):
        text = lab.path(page).read_text()
        assert re.search(r"\| f16 \(baseline\) +\| q4_k_m +\| bad +\| unmade +\|", text)
        for variant in ("bad", "unmade"):
            assert f"- **Failed**, `{variant}`: fetch_gguf: broken.F16.gguf: not a GGUF" in text
    assert 'bad,failed,"fetch_gguf: ' in lab.path("results/comparison.csv").read_text()
    again = lab.planned()  # what failed, and the table
    assert again == {
        "fetch_gguf": 1, "prompt": 1, "quantize": 1, "facts": 2, "round": 2, "trial": 2,
        "provisional": 1, "collect": 2, "compare": 1,
        "tables": 1, "charts": 1, "pages": 1, "readme": 1,
    }  # fmt: skip
    lab.config["variants"] = good
    lab.write_config()
    lab.run()
    assert "bad" not in lab.path("RESULTS.md").read_text()


def test_a_broken_baseline_is_named_and_costs_no_round_of_the_others(
    lab: Lab, tiny_gguf: Path
) -> None:
    """Without the baseline there are no trials; with another one, only they are missing."""
    whole = tiny_gguf.read_bytes()
    lab.path("broken.F16.gguf").write_bytes(whole[: len(whole) // 2])
    lab.config["models"]["broken"] = {"path": "broken.F16.gguf"}
    lab.config["variants"]["f16"]["model"] = "broken"
    lab.write_config()
    lab.snakemake("--cores", "1", ok=False)
    text = lab.path("RESULTS.md").read_text()
    assert "- **Failed**, `f16`: fetch_gguf: broken.F16.gguf: not a GGUF" in text
    del lab.config["variants"]["f16"]
    lab.config["baseline"] = "q4_k_m"
    lab.write_config()
    assert "round" not in lab.planned()


def test_neither_failure_nor_deleting_all_output_loses_the_page(lab: Lab) -> None:
    page = lab.path("RESULTS.md")
    page.write_text("no markers here\n")
    done = lab.snakemake("--cores", "1", ok=False)
    assert "needs these two lines" in done.stderr
    assert page.read_text() == "no markers here\n"
    lab.snakemake("--delete-all-output", "--cores", "1")
    assert page.read_text() == "no markers here\n"


def test_the_plan_can_be_looked_at(lab: Lab) -> None:
    for option in ("--dag", "--rulegraph"):
        drawn = lab.snakemake(option).stdout
        assert drawn.startswith("digraph") and drawn.rstrip().endswith("}")
    summary = lab.snakemake("--summary").stdout.splitlines()
    assert summary[0].startswith("output_file")


def test_cores_do_not_change_the_threads(lab: Lab, tiny_gguf: Path) -> None:
    lab.config["threads"] = 2
    lab.write_config()
    lab.run("results/f16.json")
    assert lab.json("results/f16.json")["runtime"]["threads"] == 2


def test_the_page_on_architecture_shows_the_rule_graph(lab: Lab) -> None:
    shutil.copy(ROOT / "config.yaml", lab.folder)
    names: dict[str, str] = {}

    def edges(lines: list[str]) -> set[tuple[str, str]]:
        names.clear()
        for line in (line.strip() for line in lines):
            if "[" in line and line.startswith("id"):
                names[line.split("[")[0]] = line.split("[")[1].rstrip("]")
        pairs = (line.strip().split(" --> ") for line in lines if " --> " in line)
        return {(names[a], names[b]) for a, b in pairs}

    real = edges(lab.snakemake("--rulegraph", "mermaid-js").stdout.splitlines())
    page = (ROOT / "docs/architecture.md").read_text()
    shown = page.split("```mermaid\n")[1].split("```")[0].splitlines()
    assert edges(shown) == real


def test_a_model_of_any_form_of_quantization(lab: Lab) -> None:
    variants = copy.deepcopy(lab.config["variants"])
    variants["q2_k"] = {"runtime": "llama.cpp", "quantization": "Q2_K"}
    lab.config["variants"] = variants
    lab.write_config()
    lab.run("results/q2_k.json")
    assert lab.json("results/q2_k.json")["model"]["bits_per_weight"] < 5
