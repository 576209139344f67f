"""Values that no key of a config may have: secrets, and numbers without end."""

import re
from collections.abc import Callable
from typing import Any

from minillm_lab.jobs.errors import LabError

SECRET = r"\bhf_[A-Za-z0-9]{20,}|://[^/\s]+@"


def check_values(config: dict[str, Any], origin: str) -> None:
    """Raise LabError where a config holds a secret, or a number that no key has use for."""
    if key := place_of(is_endless, config):
        raise LabError(f"{origin}: {key}: is a number of more than 18 digits; give a smaller one")
    if key := place_of(is_secret, config):
        raise LabError(
            f"{origin}: {key}: holds a token or password, which a config must not hold;"
            " set the environment variable HF_TOKEN, or run 'hf auth login'"
        )


def place_of(wrong: Callable[[Any], bool], value: Any) -> str | None:
    """Where in a config the first value or key is ``wrong``, as ``a.b``; None where none is."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if wrong(key):
                return "a key"
            if (place := place_of(wrong, inner)) is not None:
                return f"{key}.{place}".rstrip(".")
    if isinstance(value, list | tuple | set):  # YAML makes all three
        return next((p for p in (place_of(wrong, v) for v in value) if p is not None), None)
    return "" if wrong(value) else None


def is_endless(value: Any) -> bool:
    """An integer that no key has use for, and that Python may refuse to print."""
    return isinstance(value, int) and abs(value) >= 10**18


def is_secret(value: Any) -> bool:
    """Whether a value looks like a secret: a hub's token, or a URL with a password."""
    return isinstance(value, str) and bool(re.search(SECRET, value))
