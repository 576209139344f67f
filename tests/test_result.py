"""Results that were edited, cut, or written by another version are refused by name."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from builders import made_up
from minillm_lab.jobs.errors import LabError
from minillm_lab.records import read_record, write_record
from minillm_lab.result import Result, quantized_in

EDITS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "schema_version": lambda r: r.update(schema_version=0),
    "metrics.load_cold_seconds.unit": lambda r: r["metrics"]["load_cold_seconds"].pop("unit"),
    "model.parameters": lambda r: r["model"].update(parameters="many"),
    "mine": lambda r: r.update(mine="a note"),
    "decode_seconds_by_token.0": lambda r: r.update(decode_seconds_by_token=[float("nan")]),
}


@pytest.mark.parametrize("key", EDITS)
def test_an_edited_result_is_refused_by_its_name_and_key(key: str, tmp_path: Path) -> None:
    path = tmp_path / "q4.json"
    write_record(path, made_up("q4"))
    assert read_record(path, Result).variant == "q4"
    edited = json.loads(path.read_text())
    EDITS[key](edited)
    path.write_text(json.dumps(edited))
    with pytest.raises(LabError) as refused:
        read_record(path, Result)
    assert str(refused.value).startswith(f"{path}: not a results file of this version ({key}: ")
    assert str(refused.value).endswith("; delete it, and it is made again")
    assert "\n" not in str(refused.value)


def test_a_result_that_was_cut_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "q4.json"
    write_record(path, made_up("q4"))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(LabError, match=r"q4\.json: not a results file"):
        read_record(path, Result)


@pytest.mark.parametrize(
    "name",
    [
        "Q5_K_M.gguf",
        "Q5_K_M+imatrix.gguf",
        "m-Q6_K+imatrix-0a1b2c3d.gguf",
        "Q6_K+imatrix+tensors-0a1b2c3d.gguf",
        "Q8_0+tensors-0a1b2c3d.gguf",
        "recipe+imatrix+size-0a1b2c3d.gguf",
        "F16.gguf",
        "chef-recipe.gguf",
    ],
)
def test_a_reference_of_quantized_weights_is_known_by_its_name(name: str) -> None:
    assert quantized_in([name]) == (None if name in ("F16.gguf", "chef-recipe.gguf") else name)


@pytest.mark.parametrize(
    ("type_", "mostly"),
    [("Q4_K_M", "Q4_K"), ("IQ3_M", "IQ3_S"), ("IQ3_S", "IQ3_S"), ("Q2_K", "Q2_K")],
)
def test_a_file_of_a_type_holds_its_main_type(type_: str, mostly: str) -> None:
    whole = made_up("whole", quantization=type_, tensor_types={mostly: 0.9, "Q6_K": 0.1})
    other = made_up("other", quantization=type_, tensor_types={"Q5_0": 0.9, mostly: 0.1})
    assert (whole.model.share_of_named_type, other.model.share_of_named_type) == (0.9, 0.1)
