"""Recipes through the real workflow: within their bounds, as their file says, and staleness."""

import copy
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from test_staleness import changed

from conftest import Lab, tiny_config
from minillm_lab.header import read_gguf

MEASURED = {"round": 1, "trial": 1, "facts": 1, "collect": 1, "score": 1, "compare": 1}
MEASURED |= {"tables": 1, "charts": 1, "pages": 1, "readme": 1, "provisional": 1}
TYPES = ["Q8_0", "Q6_K", "Q5_K", "Q4_K", "Q3_K"]
RECIPE = {"runtime": "llama.cpp", "quantization": "recipe", "types": TYPES}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, tiny_gguf: Any) -> Lab:
    """A finished experiment: a stock type, a recipe of its size, and one by bits per weight."""
    config = tiny_config(tiny_gguf, rounds=1, trials=1)
    config["search"] = "1min"
    config["variants"] = {
        "f16": config["variants"]["f16"],
        "stock": {"runtime": "llama.cpp", "quantization": "Q4_K_M"},
        "same": RECIPE | {"size": {"of": "stock"}},
        "bits": RECIPE | {"bits_per_weight": 7.0, "imatrix": "none"},
        "timed": RECIPE | {"time": "10s"},
    }
    config["quality"] = {"chunks": 2, "questions": None, "reference": "f16"}
    lab = Lab(tmp_path_factory.mktemp("lab") / "lab", config)
    lab.run()
    return lab


@contextmanager
def asking(lab: Lab, **settings: Any) -> Iterator[None]:
    variants = copy.deepcopy(lab.config["variants"])
    variants["same"] |= settings
    with changed(lab, variants=variants):
        yield


def test_a_recipe_is_within_its_size_and_holds_the_types_that_its_file_names(done: Lab) -> None:
    stock = done.json("results/stock.json")["model"]["files"][0]["bytes"]
    for name, most in (("same", stock), ("bits", None)):
        model = done.json(f"results/{name}.json")["model"]
        (file,) = model["files"]
        header = read_gguf(done.path(file["path"]))
        weights = sum(group["weights"] for group in model["recipe"]["groups"])
        assert file["bytes"] == model["recipe"]["bytes"] <= (most or 7.0 * model["parameters"] / 8)
        types = {tensor.name: tensor.type for tensor in header.tensors}
        for pattern, type_ in model["recipe"]["tensors"].items():
            found = [t for n, t in types.items() if re.search(pattern, n)]
            assert found and {*found} == {type_}
        assert model["quantization"] == "recipe" and weights <= model["parameters"]
        assert sum(key.startswith("minillm_lab.recipe.") for key in header.keys) == len(
            model["recipe"]["tensors"]
        )
        assert "minillm_lab.version" in header.keys
        assert (model["imatrix"] is not None) == (name == "same")


def test_a_recipe_within_a_time_says_so(done: Lab) -> None:
    recipe = done.json("results/timed.json")["model"]["recipe"]
    assert (recipe["size"], recipe["time"]) == (None, "10000 ms a token")
    assert {g["type"] for g in recipe["groups"]} == {"Q8_0"}  # it has time for the finest
    assert all(0 < one["times"]["decode"] < 1 for one in recipe["candidates"])
    page = done.path("RESULTS.md").read_text()
    assert re.search(
        r"Recipe, `timed`: the types of \d+ groups .* in 10000 ms a token by its", page
    )


def test_table_and_pages_set_a_recipe_against_the_stock_type_of_its_size(done: Lab) -> None:
    page = done.path("RESULTS.md").read_text()
    (weights,) = [line for line in page.splitlines() if line.startswith("| Weights")]
    cells = {cell.strip() for cell in weights.split("|")[2:-1]}
    assert cells == {"F16", "Q4_K_M, imatrix", "recipe, imatrix", "recipe"}
    (row,) = [line for line in page.splitlines() if line.startswith("| recipe ")]
    assert "stock (Q4_K_M, " in row and "same (own, " in row and "×" in row
    assert re.search(r"Recipe `same` \(.* MB\) diverges ×.* as much as `stock` \(Q4_K_M, ", page)
    assert done.path("results/recipes.svg").exists()


def test_its_lines_are_exported_as_llama_quantize_takes_them(done: Lab) -> None:
    recipe = done.json("results/same.json")["model"]["recipe"]
    lines = done.program("export", "--format=recipe", "--variant=same").splitlines()
    assert lines == [f"{p}={t.lower()}" for p, t in recipe["tensors"].items()]
    with pytest.raises(AssertionError, match="there are several recipes; name one by --variant: "):
        done.program("export", "--format=recipe")


def test_another_size_repeats_the_assignment_and_another_text_nothing_of_it(done: Lab) -> None:
    assert done.planned() == {}
    with asking(done, size="1MB"):
        assert done.planned() == {"recipe": 1, "bake": 1} | MEASURED
    with changed(done, quality={"chunks": 3, "questions": None, "reference": "f16"}):
        assert {"sensitivity", "recipe", "bake"}.isdisjoint(done.planned())
    more = {"more": RECIPE | {"size": "900kB", "types": ["Q8_0", "Q4_0"]}}
    with changed(done, variants=done.config["variants"] | more):
        assert {done.planned()[rule] for rule in ("sensitivity", "recipe", "bake")} == {1}
    with changed(done, search="2min"):
        assert done.planned()["sensitivity"] == 2
    timed = {"timed": RECIPE | {"time": "20s"}}
    with changed(done, variants=done.config["variants"] | timed):
        assert done.planned() == {"recipe": 1, "bake": 1} | MEASURED
    more = {"timed": RECIPE | {"time": "10s", "threads": 2}}
    with changed(done, variants=done.config["variants"] | more):
        assert done.planned() == {"times": 1, "recipe": 1, "bake": 1} | MEASURED
    assert done.planned() == {}


def test_a_size_that_no_types_reach_is_one_line_and_nothing_is_made(done: Lab) -> None:
    before = {p.name for p in done.path("models/tiny").iterdir()}
    with asking(done, size="1kB"):
        refused = done.snakemake("--cores", "1", "results/same.json", ok=False)
    said = {line for line in refused.stderr.splitlines() if line.startswith("error: ")}
    assert len(said) == 1 and "the file cannot be as small as 1,000 bytes" in said.pop()
    assert {p.name for p in done.path("models/tiny").iterdir()} == before
    assert json.loads(done.path("results/same.json").read_text())
