"""The search for what groups of tensors lose, on a tiny model."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf.constants import GGMLQuantizationType
from gguf.quants import dequantize, quantize

from minillm_lab.header import read_gguf
from minillm_lab.jobs.errors import LabError
from minillm_lab.models import imatrix as matrices
from minillm_lab.models.quantize import Quantizer
from minillm_lab.recipes import sensitivity
from minillm_lab.recipes.assignment import recipe
from minillm_lab.recipes.candidates import CHUNKS, Baker
from minillm_lab.recipes.errors import ANY, can_hold, errors_of, only, stored
from minillm_lab.recipes.sensitivity import Text, search
from minillm_lab.recipes.shapes import GroupLoss, Sensitivity
from tiny_model import split_gguf, write_tiny_gguf

TYPES = ("Q8_0", "Q5_0", "Q4_0", "Q3_K")
TEXT = (Path(matrices.__file__).parent / "calibration.txt").read_text()


def searched(weights: Path, kept: Path, types: tuple[str, ...] = TYPES) -> Sensitivity:
    return search(weights, None, TEXT, "a text", types, 60.0, 1, kept)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("search") / "measured"


@pytest.fixture(scope="module")
def found(tiny_gguf: Path, kept: Path) -> Sensitivity:
    return searched(tiny_gguf, kept)


def test_an_error_is_that_of_gguf_s_own_quantizer(tiny_gguf: Path, tmp_path: Path) -> None:
    name, type_ = "blk.0.ffn_up.weight", GGMLQuantizationType.Q8_0
    errors = errors_of("Q8_0", Quantizer(tiny_gguf, ANY), [name], tmp_path / "scratch")
    tensor, data = stored(tiny_gguf)[name]
    before = dequantize(data.reshape(tensor.shape[1], -1), GGMLQuantizationType[tensor.type])
    after = dequantize(quantize(before, type_), type_)
    assert errors == {name: pytest.approx(float(((after - before) ** 2).sum()), rel=1e-3)}
    assert [*tmp_path.iterdir()] == []


def test_every_tensor_of_the_blocks_and_the_embedding_has_losses(
    found: Sensitivity, tiny_gguf: Path
) -> None:
    names = {name for group in found.groups for name in group.tensors}
    two = {t.name for t in read_gguf(tiny_gguf).tensors if len([n for n in t.shape if n > 1]) > 1}
    assert names == two
    for group in found.groups:
        losses = [choice.loss for choice in group.types.values()]
        assert [*group.types] == [*TYPES] and losses == sorted(losses)
        assert sum(choice.measured for choice in group.types.values()) == sensitivity.MEASURED


def test_a_measured_loss_is_that_of_a_file_with_the_group_alone_quantized(
    found: Sensitivity, tiny_gguf: Path, tmp_path: Path
) -> None:
    group = next(group for group in found.groups if group.role == "ffn_down")
    type_ = next(t for t, choice in group.types.items() if choice.measured)
    file = tmp_path / "one.gguf"
    only(Quantizer(tiny_gguf, ANY), dict.fromkeys(group.tensors, type_)).write(file)
    types = {tensor.name: tensor.type for tensor in read_gguf(file).tensors}
    assert {n for n, t in types.items() if t == type_} == {*group.tensors}
    assert np.mean(Text(tiny_gguf, TEXT, 1).losses(file)) == pytest.approx(group.types[type_].loss)


def test_a_search_that_was_killed_goes_on_where_it_was(
    found: Sensitivity, kept: Path, tiny_gguf: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    lines = kept.read_text().splitlines()
    again = tmp_path / "measured"
    again.write_text("\n".join(lines[:-2]) + "\n" + lines[-2][:10])  # killed while it wrote
    measured: list[Path] = []
    losses = Text.losses

    def counted(self: Text, weights: Path) -> list[float]:
        measured.append(weights)
        return losses(self, weights)

    monkeypatch.setattr(Text, "losses", counted)
    assert searched(tiny_gguf, again).groups == found.groups
    assert len(measured) == 2


def test_what_was_measured_of_another_file_is_not_taken(
    kept: Path, tiny_gguf: Path, tmp_path: Path
) -> None:
    again = tmp_path / "measured"
    first, *rest = kept.read_text().splitlines()
    other = json.dumps(json.loads(first).replace("0", "1"))
    again.write_text("\n".join([other, *rest]) + "\n")
    kept_now = sensitivity.Measured(again, json.loads(first))
    assert kept_now.found == {} and again.read_text().splitlines() == [first]


def test_types_that_no_row_divides_into_are_refused(tmp_path: Path) -> None:
    write_tiny_gguf(tmp_path / "narrow.gguf", width=96, feed=96)
    with pytest.raises(LabError, match="no tensor's rows divide into blocks of Q4_K"):
        searched(tmp_path / "narrow.gguf", tmp_path / "measured", ("Q4_K",))


def test_a_recipe_is_within_its_size_and_scored_as_a_whole(
    found: Sensitivity, tiny_gguf: Path, tmp_path: Path
) -> None:
    size = sum(g.types["Q5_0"].bytes for g in found.groups) + 20_000
    made = recipe(tiny_gguf, None, found, TEXT, size, TYPES, 1, tmp_path / "scratch")
    assert made.bytes <= size
    quantizer = Quantizer(tiny_gguf, made.type, None, made.tensors)
    file = tmp_path / "recipe.gguf"
    types = quantizer.types()
    quantizer.write(file)
    by_group = {name: group.type for group, g in zip(made.groups, found.groups, strict=True)
                for name in g.tensors}  # fmt: skip
    assert {n: types[n] for n in by_group} == by_group
    assert np.mean(Text(tiny_gguf, TEXT, 1, CHUNKS).losses(file)) == pytest.approx(made.measured)
    assert sum(group.loss for group in made.groups) == pytest.approx(made.predicted)


def test_every_size_that_a_file_can_have_is_made_and_no_room_is_wasted(
    tiny_gguf: Path, found: Sensitivity
) -> None:
    baker = Baker(tiny_gguf, None, found)
    smallest = tuple(min(g.types, key=lambda t: g.types[t].bytes) for g in found.groups)
    least = baker.bytes(smallest)
    assert baker.fitted(least, baker.room(least), 1.0) == smallest
    random = np.random.default_rng(1)
    for _ in range(8):
        types = tuple(random.choice([*g.types]) for g in found.groups)
        size, loss = baker.bytes(types), sum(map(loss_of, found.groups, types))
        best = baker.fitted(size, baker.room(size), 1.0)
        assert baker.bytes(best) <= size
        assert sum(map(loss_of, found.groups, best)) <= loss * (1 + 1e-6)


@pytest.mark.parametrize("types", [("Q4_0", "IQ4_NL"), ("IQ4_NL", "Q4_0")])
def test_a_header_that_is_too_long_gives_way_where_types_take_equal_bytes(
    types: tuple[str, str], tiny_gguf: Path, tmp_path: Path
) -> None:
    """Each group loses least in another type than the one before: each is a line of the header."""
    found = searched(tiny_gguf, tmp_path / "measured", types).model_copy(deep=True)
    for number, group in enumerate(found.groups):
        for type_, choice in group.types.items():
            choice.loss = float(type_ != types[number % 2])
    baker = Baker(tiny_gguf, None, found)
    least = baker.bytes(baker.smallest)
    assert least == min(baker.bytes((type_,) * len(found.groups)) for type_ in types)
    best = tuple(types[number % 2] for number in range(len(found.groups)))
    assert baker.of_groups(best) == baker.of_groups(baker.smallest)
    assert baker.bytes(best) > least
    assert baker.fitted(least, baker.room(least), 1.0) == baker.smallest


def loss_of(group: GroupLoss, type_: str) -> float:
    return group.types[type_].loss


def test_a_size_larger_than_any_file_is_no_matter_of_the_disk(
    tiny_gguf: Path, found: Sensitivity, tmp_path: Path
) -> None:
    made = recipe(tiny_gguf, None, found, TEXT, 10**15, TYPES, 1, tmp_path / "scratch")
    assert made.bytes < tiny_gguf.stat().st_size


def test_a_size_below_the_smallest_types_is_one_line(
    found: Sensitivity, tiny_gguf: Path, tmp_path: Path
) -> None:
    with pytest.raises(LabError, match=r"cannot be as small as 10,000 bytes: .* it takes \d"):
        recipe(tiny_gguf, None, found, TEXT, 10_000, TYPES, 1, tmp_path / "scratch")


def test_tensors_that_no_type_can_store_stay_unquantized_and_count(tmp_path: Path) -> None:
    weights, types = tmp_path / "narrow.gguf", ("Q6_K", "Q3_K")
    write_tiny_gguf(weights, feed=160)  # rows of ffn_down
    searched_ = searched(weights, tmp_path / "measured", types)
    assert not any("ffn_down" in name for group in searched_.groups for name in group.tensors)
    sizes = [g.types[t].bytes for g in searched_.groups for t in types]
    baker = Baker(weights, None, searched_)
    for size in range(600_000, weights.stat().st_size, max(sizes) // 2):
        chosen = baker.fitted(size, baker.room(size), 1.0)
        stored_types = baker.quantizer(chosen).types()
        assert baker.bytes(chosen) <= size
        assert {stored_types[f"blk.{n}.ffn_down.weight"] for n in range(2)} == {"F16"}
    made = recipe(weights, None, searched_, TEXT, size, types, 1, tmp_path / "scratch")
    assert made.bytes <= size
    stored_types = Quantizer(weights, made.type, None, made.tensors).types()
    assert {stored_types[f"blk.{n}.ffn_down.weight"] for n in range(2)} == {"F16"}


def test_without_a_matrix_the_types_that_need_one_are_no_choice(
    tiny_gguf: Path, tmp_path: Path
) -> None:
    found = searched(tiny_gguf, tmp_path / "measured", ("IQ3_XXS", "Q4_0"))
    in_layers = [group for group in found.groups if group.layers]
    assert in_layers and all([*group.types] == ["Q4_0"] for group in in_layers)
    with pytest.raises(LabError, match="or these need an importance matrix"):
        searched(tiny_gguf, tmp_path / "other", ("IQ2_XS",))


def test_a_layer_that_the_matrix_lacks_takes_no_type_that_needs_it(
    tiny_gguf: Path, tmp_path: Path
) -> None:
    matrix, lacking = tmp_path / "imatrix.gguf", "blk.0.ffn_up.weight"
    whole = matrices.collect(tiny_gguf, TEXT, "a text", 2)
    partial = {name: inputs for name, inputs in whole.found.items() if name != lacking}
    matrices.write_imatrix(replace(whole, found=partial), matrix)
    search(tiny_gguf, matrix, TEXT, "a text", ("IQ3_XXS", "Q4_0"), 1e-6, 1, tmp_path / "measured")
    means = Quantizer(tiny_gguf, ANY, matrix).means
    assert lacking not in means and means
    tensors = {tensor.name: tensor for tensor in read_gguf(tiny_gguf).tensors}
    able = {name for name in tensors if can_hold("IQ3_XXS", tensors[name], means)}
    assert lacking not in able and "blk.1.ffn_up.weight" in able and "token_embd.weight" in able


def test_a_shorter_search_takes_larger_groups_after_a_longer_one_too(
    found: Sensitivity, kept: Path, tiny_gguf: Path, tmp_path: Path
) -> None:
    again = tmp_path / "measured"
    again.write_bytes(kept.read_bytes())
    shorter = search(tiny_gguf, None, TEXT, "a text", TYPES, 1e-6, 1, again)
    assert (found.parts, shorter.parts) == (2, 1)


def test_a_source_in_parts_is_searched_like_a_whole_one(
    found: Sensitivity, tiny_gguf: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "tiny.split"
    split_gguf(tiny_gguf, folder, "tiny")
    assert searched(folder, tmp_path / "measured").groups == found.groups
