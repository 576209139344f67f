"""Groups of tensors and the patterns that name them."""

import re
from zlib import crc32

import pytest

from minillm_lab.recipes.groups import groups_of, patterns

ROLES = ("attn_q", "attn_v", "ffn_down")
ROWS = {f"blk.{n}.{role}.weight": 64 for n in range(10) for role in ROLES}
ROWS |= {"token_embd.weight": 64, "output.weight": 64}


@pytest.mark.parametrize("parts", [1, 3, 4, 10, 50])
def test_every_tensor_is_in_one_group_of_its_role_and_neighbouring_layers(parts: int) -> None:
    groups = groups_of(ROWS, parts)
    assert sorted(name for group in groups for name in group.tensors) == sorted(ROWS)
    assert len(groups) == len(ROLES) * min(parts, 10) + 2
    for group in groups:
        assert all(group.role in name for name in group.tensors)
        if group.layers:
            assert group.layers == tuple(range(group.layers[0], group.layers[-1] + 1))
        else:
            assert group.role in ("token_embd", "output")
    sizes = [len(group.tensors) for group in groups if group.layers]
    assert max(sizes) - min(sizes) <= 1


def test_tensors_of_other_rows_are_in_other_groups() -> None:
    rows = {f"blk.{n}.ffn_down.weight": 64 if n % 2 else 256 for n in range(4)}
    assert [group.layers for group in groups_of(rows, 1)] == [(1, 3), (0, 2)]


@pytest.mark.parametrize("layers", [1, 30, 200])
def test_patterns_find_their_tensors_and_no_others(layers: int) -> None:
    every = [f"blk.{n}.{role}.weight" for n in range(layers) for role in ("attn_q", "ffn_down")]
    every += ["token_embd.weight", "output.weight", "blk.0.attn_output.weight"]
    types = {name: ("Q8_0", "Q4_0", "Q5_1")[crc32(name.encode()) % 3] for name in every}
    made = patterns(types)
    for name in every:
        assert [t for p, t in made.items() if re.search(p, name)] == [types[name]]
    assert all(len(f"{pattern}=IQ3_XXS") <= 127 for pattern in made)  # all that a header takes
