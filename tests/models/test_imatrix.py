"""Importance matrices: what is summed, the file, and what another's file may not do."""

import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from minillm_lab.header import Header, read_header
from minillm_lab.jobs.errors import LabError
from minillm_lab.models import imatrix
from minillm_lab.models.facts import facts_of
from minillm_lab.models.imatrix import CHUNK, Imatrix, Inputs, collect, read_imatrix, write_imatrix
from minillm_lab.models.quantize import quantize
from minillm_lab.runtimes.llama_library import load_model
from tiny_model import write_tiny_gguf

TEXT = (Path(imatrix.__file__).parent / "calibration.txt").read_text()[: 4 * CHUNK]
PLACES = {  # llama.cpp's name of a matrix: that of Transformers' module
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}  # fmt: skip


@pytest.fixture(scope="module")
def tiny_matrix(tiny_gguf: Path) -> Imatrix:
    return collect(tiny_gguf, TEXT, "a text")


def test_it_holds_the_mean_squares_of_each_matrix_inputs(
    tiny_gguf: Path, tiny_safetensors: Path, tiny_matrix: Imatrix
) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_safetensors, dtype=torch.float32)
    seen: dict[str, list[torch.Tensor]] = {}

    def keep(name: str) -> Any:
        return lambda module, inputs, output: seen.setdefault(name, []).append(inputs[0][0])

    for layer, block in enumerate(model.model.layers):
        for ours, theirs in PLACES.items():
            module = block.get_submodule(theirs)
            module.register_forward_hook(keep(f"blk.{layer}.{ours}.weight"))
    chunks = imatrix.chunks_of(load_model(tiny_gguf, vocab_only=True), TEXT)
    with torch.inference_mode():
        for chunk in chunks:
            model(torch.tensor([chunk]), use_cache=False)
    assert tiny_matrix.found.keys() == seen.keys() and tiny_matrix.chunks == len(chunks) == 3
    for name, inputs in seen.items():
        expected = torch.cat(inputs).square().mean(dim=0).numpy()
        np.testing.assert_allclose(tiny_matrix.found[name].means, expected, rtol=0.02)
        assert tiny_matrix.found[name].counts == [3 * CHUNK]


def test_each_expert_has_the_inputs_of_the_tokens_that_chose_it(tmp_path: Path) -> None:
    write_tiny_gguf(tmp_path / "experts.gguf", experts=4, used=2)
    found = collect(tmp_path / "experts.gguf", TEXT, "a text").found
    for layer in (0, 1):
        router = found[f"blk.{layer}.ffn_gate_inp.weight"]
        for part in ("gate", "up"):  # they read what the router reads
            experts = found[f"blk.{layer}.ffn_{part}_exps.weight"]
            assert experts.counts.sum() == 2 * router.counts.sum() and len(experts.counts) == 4
            assert len({*experts.counts}) > 1  # the router does choose
            np.testing.assert_allclose(experts.sums.sum(axis=0), 2 * router.sums[0], rtol=1e-5)
        assert found[f"blk.{layer}.ffn_down_exps.weight"].counts.tolist() == experts.counts.tolist()


def test_a_matrix_is_the_same_after_writing_and_reading(
    tiny_matrix: Imatrix, tmp_path: Path
) -> None:
    write_imatrix(tiny_matrix, tmp_path / "imatrix.gguf")
    read = read_imatrix(tmp_path / "imatrix.gguf")
    assert (read.dataset, read.chunks) == ("a text", 3)
    for name, inputs in tiny_matrix.found.items():
        np.testing.assert_allclose(read.found[name].means, inputs.means, rtol=1e-6)
    assert [field.name for field in tmp_path.iterdir()] == ["imatrix.gguf"]


def test_a_file_made_with_it_says_so_and_differs(
    tiny_gguf: Path, tiny_matrix: Imatrix, tmp_path: Path
) -> None:
    long = replace(tiny_matrix, dataset="/home/jane/corp/" + "校" * 60)
    write_imatrix(long, tmp_path / "mine.gguf")
    quantize(tiny_gguf, "Q4_K_M", tmp_path / "with.gguf", tmp_path / "mine.gguf")
    quantize(tiny_gguf, "Q4_K_M", tmp_path / "without.gguf")
    assert facts_of(tmp_path / "with.gguf")["imatrix"] == {
        "file": "mine.gguf", "dataset": "校" * 42, "entries_count": 14, "chunks_count": 3,
    }  # fmt: skip
    assert facts_of(tmp_path / "without.gguf")["imatrix"] is None

    def weights_of(name: str) -> tuple[bytes, Header]:
        path = tmp_path / f"{name}.gguf"
        return path.read_bytes()[read_header(path).data :], read_header(path)

    (one, with_), (other, without) = weights_of("with"), weights_of("without")
    assert [t.type for t in with_.tensors] == [t.type for t in without.tensors]
    assert one != other and len(one) == len(other)


def test_an_expert_that_no_token_chose_counts_like_any_other_weight() -> None:
    inputs = Inputs(np.array([[2.0, 4.0], [0.0, 0.0]]), np.array([2, 0]))
    assert inputs.means.tolist() == [1.0, 2.0, 1.0, 1.0]


@pytest.mark.parametrize("type_", ["IQ2_XS", "IQ3_XXS", "IQ1_S", "Q2_K_S"])
def test_a_type_that_needs_a_matrix_is_refused_in_one_line(
    type_: str, tiny_gguf: Path, tmp_path: Path
) -> None:
    with pytest.raises(LabError, match=rf"{type_}.* only with an importance matrix.*imatrix: own"):
        quantize(tiny_gguf, type_, tmp_path / "out.gguf")
    assert not [*tmp_path.iterdir()]


def written(path: Path, tensors: dict[str, np.ndarray[Any, Any]], kind: str = "imatrix") -> Path:
    writer = gguf.GGUFWriter(path, "")
    writer.add_type(kind)
    for name, values in tensors.items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


SUMS, COUNTS = np.ones((1, 4), np.float32), np.ones((1, 1), np.float32)


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"a.in_sum2": SUMS}, "no importance matrix"),
        ({"a.in_sum2": SUMS, "b.counts": COUNTS}, "lacks sums or counts"),
        ({"a.in_sum2": SUMS.astype(np.float16), "a.counts": COUNTS}, "lacks sums or counts in F32"),
        ({"a.in_sum2": SUMS * np.nan, "a.counts": COUNTS}, "no sum of squares"),
        ({"a.in_sum2": -SUMS, "a.counts": COUNTS}, "no sum of squares"),
        ({"a.in_sum2": SUMS, "a.counts": np.ones((3, 1), np.float32)}, "4 sums and 3 counts"),
        ({"a.weight": SUMS}, "no importance matrix"),
        ({"a.in_sum2": SUMS, "a.counts": COUNTS / 2}, "no sum of squares"),
        ({"a.in_sum2": SUMS, "a.counts": COUNTS * np.float32(1e30)}, "no sum of squares"),
    ],
)
def test_what_is_no_matrix_is_refused(
    tensors: dict[str, np.ndarray[Any, Any]], said: str, tmp_path: Path
) -> None:
    with pytest.raises(LabError, match=said) as error:
        read_imatrix(written(tmp_path / "other.gguf", tensors))
    assert "other.gguf" in str(error.value) and "\n" not in str(error.value)


def test_a_model_is_no_matrix_and_the_older_form_is_named(tiny_gguf: Path, tmp_path: Path) -> None:
    with pytest.raises(LabError, match="but no importance matrix"):
        read_imatrix(tiny_gguf)
    (tmp_path / "old.dat").write_bytes(struct.pack("<i", 1))
    with pytest.raises(LabError, match=r"old\.dat.*llama-imatrix"):
        imatrix.calibration_text(tmp_path / "old.dat")


def test_a_matrix_of_another_model_is_refused_and_nothing_is_left(
    tiny_gguf: Path, tmp_path: Path
) -> None:
    write_tiny_gguf(tmp_path / "wide.gguf", width=512)
    write_imatrix(collect(tmp_path / "wide.gguf", TEXT, "a text"), tmp_path / "wide.imatrix.gguf")
    with pytest.raises(LabError, match=r"wide\.imatrix\.gguf.*512 inputs.* has 256"):
        quantize(tiny_gguf, "Q4_K_M", tmp_path / "out.gguf", tmp_path / "wide.imatrix.gguf")
    assert not (tmp_path / "out.gguf").exists()


def test_a_text_shorter_than_a_chunk_is_refused(tiny_gguf: Path) -> None:
    with pytest.raises(LabError, match="fewer than 512 tokens"):
        collect(tiny_gguf, "A short text.", "a text")
