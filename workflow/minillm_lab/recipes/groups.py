"""Groups of tensors that one type is chosen for, and patterns that name them to llama.cpp."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

LONGEST = 118  # characters of a pattern, so that a file's header holds it with its type
IN_A_LAYER = re.compile(r"blk\.(\d+)\.(.+)")


@dataclass(frozen=True)
class Group:
    """Tensors of one role in neighbouring layers, or a tensor outside the layers."""

    role: str  # such as ffn_down
    layers: tuple[int, ...]  # empty outside the layers
    tensors: tuple[str, ...]

    @property
    def name(self) -> str:
        if not self.layers:
            return self.role
        first, last = self.layers[0], self.layers[-1]
        return f"{self.role} {first}" if first == last else f"{self.role} {first}–{last}"

    @property
    def key(self) -> str:
        """All its tensors, in patterns."""
        return " ".join(patterns(dict.fromkeys(self.tensors, "")))


def place_of(tensor: str) -> tuple[str, int | None]:
    """A tensor's role and layer; the layer is None outside the layers."""
    found = IN_A_LAYER.fullmatch(tensor)
    role = (found[2] if found else tensor).removesuffix(".weight")
    return role, int(found[1]) if found else None


def groups_of(rows: Mapping[str, int], parts: int) -> list[Group]:
    """The groups, where the layers are cut into ``parts`` of about equal size.

    ``rows``: the tensors, with the lengths of their rows, which are alike in a group.
    """
    placed = [(tensor, *place_of(tensor)) for tensor in rows]
    count = max((layer for _, _, layer in placed if layer is not None), default=-1) + 1
    found: dict[tuple[str, int, int], list[tuple[int, str]]] = {}
    for tensor, role, layer in placed:
        part = -1 if layer is None else layer * min(parts, count) // count
        place = -1 if layer is None else layer
        found.setdefault((role, part, rows[tensor]), []).append((place, tensor))
    groups = []
    for (role, part, _), members in sorted(found.items()):
        members.sort()
        layers = tuple(layer for layer, _ in members) if part >= 0 else ()
        groups.append(Group(role, layers, tuple(tensor for _, tensor in members)))
    return groups


def patterns(types: Mapping[str, str]) -> dict[str, str]:
    """The types of tensors by name as types by pattern, as ``--tensor-type`` takes them.

    Each pattern is one role in layers that get one type; a long list of layers makes several.
    """
    found: dict[tuple[str, str], list[int | None]] = {}
    for tensor, type_ in types.items():
        role, layer = place_of(tensor)
        suffix = ".weight" if tensor.endswith(".weight") else ""
        found.setdefault((role + suffix, type_), []).append(layer)
    made = {}
    for (name, type_), layers in sorted(found.items()):
        if None in layers:
            made[f"^{re.escape(name)}$"] = type_
            continue
        taken = list[int]()
        for layer in sorted(n for n in layers if n is not None):
            if taken and len(in_layers([*taken, layer], name)) > LONGEST:
                made[in_layers(taken, name)] = type_
                taken = []
            taken.append(layer)
        made[in_layers(taken, name)] = type_
    return made


def in_layers(layers: Iterable[int], name: str) -> str:
    """A pattern for a tensor in some layers."""
    return rf"^blk\.({'|'.join(map(str, layers))})\.{re.escape(name)}$"
