"""OpenVINO through the real workflow: files, facts, table, quality; and what it refuses."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from conftest import Lab, tiny_config

MODES = {"int8": "openvino-int8", "int4_sym": "openvino-int4_sym-64"}
AS_IT_COMES = {"precision": "bf16", "kv_cache": "u8", "dynamic_quantization": 32}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, tiny_gguf: Path) -> Lab:
    """A finished experiment: float32 in Transformers and in OpenVINO, and what NNCF compresses."""
    config = tiny_config(tiny_gguf, rounds=1, trials=1)
    config["quality"] = {"chunks": 2, "context": 64, "questions": None}
    config["variants"] = {
        "fp32": {"runtime": "transformers", "dtype": "float32"},
        "plain": {"runtime": "openvino"},
        "int8": {"runtime": "openvino", "quantization": "int8"},
        "int4_sym": {"runtime": "openvino", "quantization": "int4_sym"},
        "rounded": {"runtime": "openvino", "quantization": "int8"} | AS_IT_COMES,
    }
    config["baseline"] = "fp32"
    lab = Lab(tmp_path_factory.mktemp("openvino") / "lab", config)
    lab.run()
    return lab


def result(lab: Lab, name: str) -> Any:
    return lab.json(f"results/{name}.json")


def test_unquantized_it_computes_what_the_reference_computes(done: Lab) -> None:
    plain, reference = result(done, "plain"), result(done, "fp32")
    assert plain["quality"]["kld_mean"]["value"] < 1e-6
    assert plain["output"]["token_ids"] == reference["output"]["token_ids"]
    assert plain["model"]["tensor_types"]["F16"] > 0.99  # as in the source
    assert plain["model"]["parameters"] == reference["model"]["parameters"]
    assert plain["trials"] and plain["metrics"]["decode_tokens_per_second"]["value"] > 0


@pytest.mark.parametrize("name", MODES)
def test_the_result_says_what_the_file_holds(done: Lab, name: str) -> None:
    model = result(done, name)["model"]
    assert (model["format"], model["quantization"]) == ("openvino", MODES[name])
    assert [Path(f["path"]).name for f in model["files"]] == [
        "openvino_model.xml",
        "openvino_model.bin",
    ]
    types = model["tensor_types"]
    if name == "int8":
        assert types["U8"] > 0.99 and 8 < model["bits_per_weight"] < 8.3
    else:
        assert types["I4"] == pytest.approx(0.883, abs=0.01)  # not the embedding and the output
        assert types["U8"] == pytest.approx(0.115, abs=0.01)
        assert 4.5 < model["bits_per_weight"] < 5
    stored = model["files"][1]["bytes"]
    assert 8 * stored / model["parameters"] == pytest.approx(model["bits_per_weight"], rel=0.02)


def test_settings_are_recorded_as_openvino_resolved_them(done: Lab) -> None:
    own = result(done, "int8")["runtime"]
    assert {"openvino", "nncf"} == set(own["version"])
    expected = {"precision": "f32", "kv_cache": "f32", "dynamic_quantization": 0, "chosen": []}
    assert own["settings"].items() >= expected.items()
    assert "scored_by" not in own["settings"]
    rounded = result(done, "rounded")["runtime"]["settings"]
    assert rounded["chosen"] == [*AS_IT_COMES]
    assert rounded["scored_by"] == "decoding"
    assert rounded.items() >= {"kv_cache": "u8", "dynamic_quantization": 32}.items()


def test_what_is_compressed_loses_something_and_more_at_four_bits(done: Lab) -> None:
    loss = {n: result(done, n)["quality"]["kld_mean"]["value"] for n in ("int8", "int4_sym")}
    assert 1e-6 < loss["int8"] < loss["int4_sym"]
    assert result(done, "rounded")["quality"]["kld_mean"]["value"] != loss["int8"]


def test_the_table_shows_the_settings(done: Lab) -> None:
    rows = {
        row[0]: row[1:]
        for line in done.path("RESULTS.md").read_text().splitlines()
        if len(row := [cell.strip() for cell in line.strip("|").split("|")]) > 5
    }
    names = ("plain", "int8", "int4_sym", "rounded")
    assert {"openvino-int8, f32", "openvino-unquantized, f32"} <= {*rows["Weights"]}
    assert sorted(rows["Activations rounded in groups of"]) == ["32", "no", "no", "no", "–"]
    assert "u8" in rows["Keys and values held in"] and len(names) == 4


def test_nothing_is_left_to_do_and_settings_do_not_convert_again(done: Lab) -> None:
    assert done.planned() == {}
    config = done.config["variants"]["int8"]
    done.config["variants"]["int8"] = config | {"kv_cache": "f16"}
    done.write_config()
    try:
        planned = done.planned()
        assert "pack" not in planned and planned["round"] == planned["trial"] == 1
    finally:
        done.config["variants"]["int8"] = config
        done.write_config()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"group": 64}, "group is that of int4_sym and int4_asym; leave it out"),
        ({"quantization": "int8", "group": 64}, "group is that of int4_sym"),
        ({"quantization": "int5"}, "'int5' is not one of 'int8', 'int4_sym' or 'int4_asym'"),
        ({"precision": "f16"}, "'f16' is not one of 'f32', 'bf16' or 'auto'"),
        ({"device": "gpu"}, "OpenVINO runs on the CPU here; leave device out"),
        ({"kv_cash": "u8"}, "unknown key; did you mean 'kv_cache'?"),
    ],
)
def test_wrong_settings_are_one_line(
    settings: dict[str, Any], said: str, tmp_path: Path, tiny_gguf: Path
) -> None:
    config = tiny_config(tiny_gguf)
    config["variants"]["plain"] = {"runtime": "openvino"} | settings
    told = Lab(tmp_path / "lab", config).snakemake("-n", ok=False).stderr
    (line,) = [line for line in told.splitlines() if line.startswith("error: ")]
    assert "variants.plain" in line and said in line


def test_a_missing_library_is_one_line(tmp_path: Path, tiny_gguf: Path) -> None:
    config = tiny_config(tiny_gguf)
    config["variants"]["plain"] = {"runtime": "openvino"}
    lab = Lab(tmp_path / "lab", config)
    module = lab.path("workflow/minillm_lab/runtimes/__init__.py")
    text = module.read_text()
    module.write_text(text.replace('["openvino", "nncf"]', '["openvino", "nncf-is-not-here"]'))
    told = lab.snakemake("-n", ok=False).stderr
    (line,) = [line for line in told.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: openvino: not installed")
    assert line.endswith('make install RUNTIMES="openvino"')


def test_a_group_that_does_not_divide_the_rows_is_one_line(tmp_path: Path, done: Lab) -> None:
    lab = Lab(tmp_path / "lab", done.config | {"baseline": "plain"})
    shutil.copytree(done.path("models"), lab.path("models"), dirs_exist_ok=True)
    lab.config["variants"] = {
        "plain": {"runtime": "openvino", "quantization": "int4_sym", "group": 48}
    }
    lab.write_config()
    told = lab.snakemake("--cores", "1", "models/tiny/openvino-int4_sym-48", ok=False)
    log = lab.path("logs/pack/tiny.openvino-int4_sym-48.log").read_text()
    assert "name another group, which divides every row" in told.stderr + log
    assert not list(lab.path("models/tiny").glob("*int4_sym-48*"))
