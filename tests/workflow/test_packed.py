"""Other libraries through the real workflow: files, facts, table, quality, staleness."""

from pathlib import Path

import pytest

from conftest import Lab, tiny_config
from minillm_lab.experiment.libraries import PACKED

MLX = "mlx-b4-g64-float32"
FORMS = (*PACKED, MLX)
LIBRARY = {"bnb-nf4": "bitsandbytes", "bnb-int8": "bitsandbytes", "torchao-int8": "torchao"}
BITS = {"bnb-nf4": (4, 8), "bnb-int8": (8, 11), "torchao-int8": (8, 11)}  # the embedding has 16
BITS |= {MLX: (4, 6)}  # of the embedding too


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, tiny_gguf: Path) -> Lab:
    """A finished experiment: each method, and float32 in Transformers."""
    config = tiny_config(tiny_gguf, rounds=1, trials=1)
    config["quality"] = {"chunks": 2, "context": 64, "questions": None}
    config["variants"] = {"fp32": {"runtime": "transformers", "dtype": "float32"}} | {
        method: {"runtime": "transformers", "quantization": method} for method in PACKED
    }
    config["variants"][MLX] = {"runtime": "mlx", "bits": 4, "dtype": "float32"}
    config["baseline"] = "fp32"
    lab = Lab(tmp_path_factory.mktemp("packed") / "lab", config)
    lab.run()
    return lab


@pytest.mark.parametrize("method", FORMS)
def test_the_result_says_what_the_file_holds(done: Lab, method: str) -> None:
    result = done.json(f"results/{method}.json")
    model, original = result["model"], done.json("results/fp32.json")["model"]
    assert model["quantization"] == method
    assert model["parameters"] == original["parameters"]
    least, most = BITS[method]
    assert least < model["bits_per_weight"] < most
    stored = sum(file["bytes"] for file in model["files"])
    assert 8 * stored / model["parameters"] == pytest.approx(model["bits_per_weight"], rel=0.2)
    quantized, kept = ("INT4", "F32") if method == MLX else (method.split("-")[1].upper(), "F16")
    assert set(model["tensor_types"]) == {quantized, kept}
    libraries = {"mlx", "mlx-lm"} if method == MLX else {"torch", "transformers", LIBRARY[method]}
    assert libraries == set(result["runtime"]["version"])


def test_what_is_quantized_loses_something_and_more_at_four_bits(done: Lab) -> None:
    loss = {n: done.json(f"results/{n}.json")["quality"]["kld_mean"]["value"] for n in FORMS}
    exact = done.json("results/fp32.json")["quality"]["kld_mean"]["value"]
    assert exact < 1e-6 < min(loss.values())
    assert max(loss["bnb-int8"], loss["torchao-int8"]) < loss["bnb-nf4"]


def test_the_table_names_the_method_and_what_it_computes_in(done: Lab) -> None:
    page = done.path("RESULTS.md").read_text()
    (weights,) = [line for line in page.splitlines() if line.startswith("| Weights")]
    assert sorted(cell.strip() for cell in weights.split("|")[2:-1]) == sorted(
        ["float32", MLX, *(f"{method}, float32" for method in PACKED)]
    )


def test_another_type_of_computing_makes_no_file_again(done: Lab) -> None:
    assert done.planned() == {}
    config = done.config["variants"]["bnb-nf4"]
    done.config["variants"]["bnb-nf4"] = config | {"dtype": "bfloat16"}
    done.write_config()
    try:
        planned = done.planned()
        assert "pack" not in planned and planned["round"] == planned["trial"] == 1
    finally:
        done.config["variants"]["bnb-nf4"] = config
        done.write_config()
