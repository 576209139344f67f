"""What makes what stale (DESIGN section 4), as real dry runs list it after a real run."""

import copy
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from conftest import Lab, tiny_config

DRAWN = {"plots": 1, "pages": 1, "readme": 1}
AFTER_ONE = {"collect": 1, "compare": 1} | DRAWN
AFTER_ALL = {"collect": 3, "compare": 1} | DRAWN


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, tiny_gguf: Path) -> Lab:
    """A finished experiment: fp16 in Transformers, F16 and Q4_K_M in llama.cpp, two rounds."""
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


def test_a_variant_added(done: Lab) -> None:
    more = done.config["variants"] | {"q8_0": {"runtime": "llama.cpp", "quantization": "Q8_0"}}
    with changed(done, variants=more):
        assert done.planned() == {"quantize": 1, "facts": 1, "round": 2} | AFTER_ONE


def test_one_variants_settings(done: Lab) -> None:
    variants = copy.deepcopy(done.config["variants"])
    variants["q4_k_m"]["threads"] = 2
    with changed(done, variants=variants):
        assert done.planned() == {"round": 2} | AFTER_ONE


def test_the_prompt(done: Lab) -> None:
    with changed(done, prompt="What {else}? 'x' \"y\" $HOME\nñ"):
        assert done.planned() == {"prompt": 1, "round": 6} | AFTER_ALL


@pytest.mark.parametrize("key", ["generate", "repetitions", "warmups", "context", "threads"])
def test_the_protocol(key: str, done: Lab) -> None:
    with changed(done, **{key: done.config[key] + 1}):
        assert done.planned() == {"round": 6} | AFTER_ALL


@pytest.mark.parametrize("module", ["benchmark/round", "benchmark/memory", "machine"])
def test_the_measuring_code(module: str, done: Lab) -> None:
    with edited(done, module):
        assert done.planned() == {"round": 6} | AFTER_ALL


def test_more_rounds_cost_only_the_new_ones(done: Lab) -> None:
    assert done.planned("--config", "rounds=4") == {"round": 6} | AFTER_ALL


@pytest.mark.parametrize(
    "module, jobs",
    [
        ("report/table", {"compare": 1} | DRAWN),
        ("report/readme", {"readme": 1}),
        ("report/learnings", {"pages": 1, "readme": 1}),
        ("report/pages", {"pages": 1}),
        ("report/tradeoff", DRAWN),
    ],
)
def test_the_words_of_the_report(module: str, jobs: dict[str, int], done: Lab) -> None:
    with edited(done, module):
        assert done.planned() == jobs


@pytest.mark.parametrize("runtime, variants", [("llama_cpp", 2), ("transformers", 1)])
def test_a_runtimes_module(runtime: str, variants: int, done: Lab) -> None:
    with edited(done, f"runtimes/{runtime}"):
        assert (
            done.planned()
            == {
                "round": 2 * variants,
                "collect": variants,
                "compare": 1,
            }
            | DRAWN
        )


@pytest.mark.parametrize("package, variants", [("llama-cpp-python", 2), ("transformers", 1)])
def test_a_runtime_upgraded(package: str, variants: int, done: Lab) -> None:
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
    assert plan["round"] == 2 * variants and plan["collect"] == variants


def test_a_result_deleted(done: Lab) -> None:
    result = done.path("results/f16.json")
    kept = result.read_bytes()
    result.unlink()
    try:
        assert done.planned() == AFTER_ONE
        done.run()  # and made again from the same rounds it is the same
        assert result.read_bytes() == kept
    finally:
        result.write_bytes(kept)


def test_the_page_outside_the_markers(done: Lab) -> None:
    page = done.path("RESULTS.md")
    page.write_text("# Another title\n" + page.read_text())
    assert done.planned() == {}


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


def test_a_local_model_that_changed(done: Lab) -> None:
    model = done.path("tiny.F16.gguf")
    before = model.stat()
    model.write_bytes(model.read_bytes())
    try:
        assert done.planned()["round"] == 6
    finally:
        import os

        os.utime(model, ns=(before.st_atime_ns, before.st_mtime_ns))
