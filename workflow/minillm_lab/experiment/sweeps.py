"""Sweeps: a variant of the config with lists in it, as one variant per combination."""

import itertools
import math
from collections.abc import Iterator
from typing import Any

from minillm_lab.experiment.messages import shown
from minillm_lab.jobs.errors import LabError

MOST_VARIANTS = 100_000  # that one entry may stand for
AXES = {"model": "", "quantization": "", "dtype": "", "threads": "t", "context": "c", "node": ""}


def with_sweeps(config: dict[str, Any], origin: str) -> dict[str, Any]:
    """A variant with lists in it as one variant per combination: <name>-<model>-q4_k_m-t2-c1024.

    The names say the values of what is a list, in the order of ``AXES``, so that one more value
    leaves the other names as they are. Raises LabError where a name would come twice.
    """
    variants = config.get("variants")
    if not isinstance(variants, dict):
        return config
    swept: dict[str, Any] = {}
    for entry, settings in variants.items():
        if math.prod(map(len, lists_of(settings).values())) > MOST_VARIANTS:
            raise LabError(
                f"{origin}: variants.{shown(entry)}: its lists make more than {MOST_VARIANTS}"
                " variants; take values out of them"
            )
        for name, chosen in combinations(entry, settings):
            if name in swept:
                raise LabError(
                    f"{origin}: variants.{entry}: makes the name {name!r} a second time;"
                    " rename the entry, or take a value out of its lists"
                )
            swept[name] = chosen
    return config | {"variants": swept}


def lists_of(settings: Any) -> dict[str, list[Any]]:
    """What is swept; an empty list is not, and is refused further on."""
    found = settings if isinstance(settings, dict) else {}
    return {key: found[key] for key in AXES if isinstance(found.get(key), list) and found[key]}


def combinations(entry: str, settings: Any) -> Iterator[tuple[str, Any]]:
    """The names and settings that one entry stands for: itself alone where nothing is a list."""
    lists = lists_of(settings)
    for values in itertools.product(*lists.values()):
        chosen = dict(zip(lists, values, strict=True))
        suffix = "".join(
            f"-{AXES[key]}{value if isinstance(value, str) else shown(value)}".lower()
            for key, value in chosen.items()
        )
        yield f"{entry}{suffix}", {**settings, **chosen} if chosen else settings
