"""Sweeps: a variant entry with lists in it stands for one variant per combination."""

import itertools
import math
from collections.abc import Iterator
from typing import Any

from minillm_lab.experiment.messages import shown
from minillm_lab.jobs.errors import LabError

MOST_VARIANTS = 100_000  # that one entry may stand for
AXES = {
    "model": "", "quantization": "", "file": "", "imatrix": "imatrix-", "size": "",
    "bits_per_weight": "bpw", "time": "", "dtype": "",
    "threads": "t", "context": "c", "kv_cache": "kv-", "flash_attention": "fa-",
    "micro_batch": "ub", "threads_batch": "tb", "mmap": "mmap-", "group": "g", "precision": "",
    "dynamic_quantization": "dq", "bits": "b",
    "algo_config": "", "block_size": "bs", "accuracy_level": "al", "node": "",
}  # fmt: skip


def with_sweeps(config: dict[str, Any], origin: str) -> dict[str, Any]:
    """The config with each combination of a variant's lists as a variant of its own.

    A name such as <entry>-<model>-q4_k_m-t2-c1024 holds the value of each list, in the order of
    ``AXES``, so one more value leaves the other names as they are. Raises LabError where two
    variants would have one name.
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
    """The lists of an entry, by key; an empty list is left to the checks that refuse it."""
    found = settings if isinstance(settings, dict) else {}
    return {key: found[key] for key in AXES if isinstance(found.get(key), list) and found[key]}


def combinations(entry: str, settings: Any) -> Iterator[tuple[str, Any]]:
    """The name and settings of each variant that an entry stands for; without lists, itself."""
    lists = lists_of(settings)
    for values in itertools.product(*lists.values()):
        chosen = dict(zip(lists, values, strict=True))
        suffix = "".join(f"-{AXES[key]}{named(value)}".lower() for key, value in chosen.items())
        yield f"{entry}{suffix}", {**settings, **chosen} if chosen else settings


def named(value: Any) -> str:
    """A value as names hold it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, dict):
        return "-".join(map(named, value.values()))
    return value if isinstance(value, str) else shown(value)
