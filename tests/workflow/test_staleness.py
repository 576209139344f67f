"""What makes what stale (DESIGN section 4), as real dry runs list it after a real run."""

import copy
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from conftest import Lab, tiny_config
from minillm_lab.report.page import BEGIN, END

DRAWN = {"tables": 1, "charts": 1, "pages": 1, "readme": 1}
FIRST = {"provisional": 1}  # where a first round or trial is another one


def collected(variants: int) -> dict[str, int]:
    return {"collect": variants, "compare": 1} | DRAWN


EVERY_TRIAL = {"trial": 4} | FIRST  # of fp16 and of q4_k_m
ALL = {"round": 6} | EVERY_TRIAL | collected(3)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, tiny_gguf: Path) -> Lab:
    """A finished experiment: fp16 in Transformers, F16 (the baseline) and Q4_K_M in llama.cpp.

    Two rounds of each, and two trials of each but the baseline.
    """
    config = tiny_config(Path("tiny.F16.gguf"))
    config["variants"] = {"fp16": {"runtime": "transformers"}} | config["variants"]
    folder = tmp_path_factory.mktemp("stale") / "with spaces and ünïcode"
    folder.mkdir()
    shutil.copy(tiny_gguf, folder)
    lab = Lab(folder, config)
    lab.run()
    return lab


@contextmanager
def changed(lab: Lab, **keys: object) -> Iterator[None]:
    """The config with other keys, and as it was afterwards."""
    before = copy.deepcopy(lab.config)
    lab.config |= keys
    lab.write_config()
    try:
        yield
    finally:
        lab.config = before
        lab.write_config()


@contextmanager
def edited(lab: Lab, module: str) -> Iterator[None]:
    """A module with another line of code, and as it was afterwards."""
    path = lab.path(f"workflow/minillm_lab/{module}.py")
    before = path.read_text()
    path.write_text(before + "\nX = 1\n")
    try:
        yield
    finally:
        path.write_text(before)


def test_nothing_changed(done: Lab) -> None:
    assert done.planned() == {}


def test_where_snakemakes_records_are_lost_changed_code_is_still_noticed(done: Lab) -> None:
    done.path(".snakemake").rename(done.path("kept"))
    try:
        assert done.planned() == {}
        with edited(done, "benchmark/round"):
            assert done.planned()["round"] == 6
    finally:
        shutil.rmtree(done.path(".snakemake"))
        done.path("kept").rename(done.path(".snakemake"))


def test_a_variant_added(done: Lab) -> None:
    more = done.config["variants"] | {"q8_0": {"runtime": "llama.cpp", "quantization": "Q8_0"}}
    with changed(done, variants=more):
        assert done.planned() == (
            {"quantize": 1, "facts": 1, "round": 2, "trial": 2} | FIRST | collected(1)
        )


def test_one_variants_settings(done: Lab) -> None:
    variants = copy.deepcopy(done.config["variants"])
    variants["q4_k_m"]["threads"] = 2
    with changed(done, variants=variants):
        assert done.planned() == {"round": 2, "trial": 2} | FIRST | collected(1)


def test_the_baselines_settings(done: Lab) -> None:
    variants = copy.deepcopy(done.config["variants"])
    variants["f16"]["threads"] = 2
    with changed(done, variants=variants):
        assert done.planned() == {"round": 2} | EVERY_TRIAL | collected(3)


def test_the_prompt(done: Lab) -> None:
    with changed(done, prompt="What {else}? 'x' \"y\" $HOME\nñ"):
        assert done.planned() == {"prompt": 1} | ALL


ROUNDS = {"round": 6} | FIRST | collected(3)
TRIALS = EVERY_TRIAL | collected(2)  # the baseline has none


@pytest.mark.parametrize(
    ("key", "jobs"),
    [
        ("generate", ALL),
        ("context", ALL),
        ("threads", ALL),
        ("repetitions", ROUNDS),
        ("warmups", ROUNDS),
        ("trial_seconds", TRIALS),
    ],
)
def test_the_protocol(key: str, jobs: dict[str, int], done: Lab) -> None:
    with changed(done, **{key: done.config[key] + 1}):
        assert done.planned() == jobs


@pytest.mark.parametrize(
    ("module", "jobs"),
    [
        ("benchmark/round", ROUNDS),
        ("benchmark/memory", ROUNDS),
        ("benchmark/trial", TRIALS),
        ("benchmark/slices", TRIALS),
        ("benchmark/yardsticks", ALL),
        ("benchmark/machine", ALL),
        ("records", ALL),
        ("result", FIRST | collected(3)),
        ("experiment/sources", FIRST | collected(3)),
    ],
)
def test_the_measuring_code(module: str, jobs: dict[str, int], done: Lab) -> None:
    with edited(done, module):
        assert done.planned() == jobs


def test_more_rounds_and_trials_cost_only_the_new_ones(done: Lab) -> None:
    assert done.planned("--config", "rounds=4") == {"round": 6} | collected(3)
    assert done.planned("--config", "trials=4") == {"trial": 4} | collected(2)


@pytest.mark.parametrize(
    "module, jobs",
    [
        ("comparison/trials", {"compare": 1} | DRAWN),
        ("comparison/states", {"compare": 1} | DRAWN),
        ("report/table", {"tables": 1, "pages": 1, "readme": 1}),
        ("report/provisional", FIRST),
        ("report/readme", {"readme": 1}),
        ("report/learnings", {"pages": 1, "readme": 1}),
        ("report/pages", {"pages": 1}),
        ("report/charts/tradeoff", {"charts": 1, "pages": 1, "readme": 1}),
    ],
)
def test_the_words_of_the_report(module: str, jobs: dict[str, int], done: Lab) -> None:
    with edited(done, module):
        assert done.planned() == jobs


# fp16 alone runs in Transformers: of trials, only its own.
OF_RUNTIME = {
    "llama.cpp": {"round": 4} | EVERY_TRIAL | collected(3),
    "transformers": {"round": 2, "trial": 2} | FIRST | collected(1),
}


@pytest.mark.parametrize("runtime", OF_RUNTIME)
def test_a_runtimes_module(runtime: str, done: Lab) -> None:
    with edited(done, f"runtimes/{runtime.replace('.', '_')}"):
        assert done.planned() == OF_RUNTIME[runtime]


@pytest.mark.parametrize(
    ("package", "runtime"), [("llama-cpp-python", "llama.cpp"), ("transformers", "transformers")]
)
def test_a_runtime_upgraded(package: str, runtime: str, done: Lab) -> None:
    # The Snakefile asks the installed packages' metadata; answer with another version.
    shim = done.folder / "shim"
    shim.mkdir(exist_ok=True)
    (shim / "sitecustomize.py").write_text(
        "import importlib.metadata as m\n"
        "real = m.version\n"
        f"m.version = lambda name: '99.9' if name == {package!r} else real(name)\n"
    )
    done.environment = {"PYTHONPATH": str(shim)}
    try:
        plan = done.planned()
    finally:
        done.environment = {}
    planned = {rule: plan.get(rule) for rule in ("round", "trial", "collect")}
    assert planned.items() <= OF_RUNTIME[runtime].items()


def test_a_result_deleted(done: Lab) -> None:
    result = done.path("results/f16.json")
    kept = result.read_bytes()
    result.unlink()
    try:
        assert done.planned() == collected(1)
        done.run()  # and made again from the same rounds it is the same
        assert result.read_bytes() == kept
    finally:
        result.write_bytes(kept)


def test_the_page_outside_the_markers(done: Lab) -> None:
    page = done.path("RESULTS.md")
    page.write_text("# Another title\n" + page.read_text())
    assert done.planned() == {}


def test_the_pages_section_edited_or_lost(done: Lab) -> None:
    page, picture = done.path("RESULTS.md"), done.path("docs/readme-tradeoff.svg")
    whole = page.read_text()
    emptied = f"# Mine\n\n{BEGIN}\n{END}\n\nAfter it.\n"
    for text in (
        emptied,
        whole.replace("### Comparison", "### Mine"),
        whole.replace(BEGIN, f"{BEGIN}\nMine."),
    ):
        page.write_text(text)
        assert done.planned() == {"readme": 1}
    page.write_text(emptied)
    done.run()
    assert page.read_text().endswith("\n\nAfter it.\n") and "### Comparison" in page.read_text()
    assert done.planned() == {}
    page.write_text(emptied)  # the same once more
    picture.unlink()
    assert done.planned() == {"readme": 1}
    done.run()
    assert picture.exists() and done.planned() == {}


def test_llama_cpp_built_anew_at_the_same_version(done: Lab) -> None:
    shim = done.folder / "shim"
    shim.mkdir(exist_ok=True)
    (shim / "sitecustomize.py").write_text(
        "import importlib.metadata as m\n"
        "real = m.PathDistribution.read_text\n"
        "more = {'RECORD': 'lib/libggml-cuda.so,sha256=x,5\\n'}\n"
        "def read_text(self, name): return (real(self, name) or '') + more.get(name, '')\n"
        "m.PathDistribution.read_text = read_text\n"
    )
    done.environment = {"PYTHONPATH": str(shim)}
    try:
        plan = done.planned()
    finally:
        done.environment = {}
    planned = {rule: plan.get(rule) for rule in ("quantize", "round", "trial", "collect")}
    assert planned == {"quantize": 1, "round": 4, "trial": 4, "collect": 3}
    versions = done.json("results/f16.json")["runtime"]["version"]
    assert versions.keys() == {"llama-cpp-python"}


def test_models_deleted(done: Lab) -> None:
    done.path("models").rename(done.path("elsewhere"))
    try:
        assert done.planned() == {}
        variants = copy.deepcopy(done.config["variants"])
        variants["q4_k_m"]["threads"] = 2
        with changed(done, variants=variants):
            plan = done.planned()
        assert plan["fetch_gguf"] == plan["quantize"] == 1  # now a variant needs the file
    finally:
        done.path("elsewhere").rename(done.path("models"))


def test_touched_code_is_the_same_code(done: Lab) -> None:
    for path in done.path("workflow/minillm_lab").rglob("*.py"):
        path.touch()
    assert done.planned() == {}


def test_a_local_model_replaced_by_an_older_file(done: Lab, tmp_path: Path) -> None:
    model, kept = done.path("tiny.F16.gguf"), tmp_path / "kept.gguf"
    shutil.copy2(model, kept)
    model.unlink()
    content = bytearray(kept.read_bytes())
    content[-1] ^= 1
    model.write_bytes(content)
    try:
        for date in (kept.stat().st_mtime, 1e9):  # of the same date and size, and older
            os.utime(model, (date, date))
            plan = done.planned()
            assert plan.items() >= {"fetch_gguf": 1, "round": 6, "trial": 4}.items()
    finally:
        shutil.copy2(kept, model)
    assert done.planned() == {}


def test_a_local_model_that_changed(done: Lab) -> None:
    model = done.path("tiny.F16.gguf")
    before = model.stat()
    model.write_bytes(model.read_bytes())
    try:
        plan = done.planned()
        assert (plan["round"], plan["trial"]) == (6, 4)
    finally:
        os.utime(model, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize(
    "file", ["results/q6_k.json", "results/rounds/q6_k.1.json", "results/trials/q6_k.1.json"]
)
def test_a_variant_that_is_not_there(file: str, done: Lab) -> None:
    said = done.snakemake("-n", file, ok=False).stderr
    line = "error: no variant 'q6_k' in this experiment; choose one of: f16, fp16, q4_k_m"
    assert said.splitlines()[-1] == line and "Traceback" not in said


def test_a_model_that_is_not_there(done: Lab) -> None:
    said = done.snakemake("-n", "results/prompts/mine.json", ok=False).stderr
    assert "error: no model 'mine' in this experiment; choose one of: tiny" in said.splitlines()
