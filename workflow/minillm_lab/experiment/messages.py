"""Messages about a config: pydantic's errors in plain words."""

import difflib
import re
import sys
from pathlib import Path
from typing import Any


def described(origin: str, error: Any, allowed: list[str]) -> str:
    """One of pydantic's errors in plain words. ``allowed`` are the keys that may stand there."""
    tags = {
        "transformers", "llama.cpp", "mlx", "openvino", "onnx", "a name", "a file", "on the hub",
        "a checksum", "of each", "a word", "a number", "a size", "a time", "of a variant", "[key]",
    }  # fmt: skip
    place = [name if (name := str(p)).isprintable() else repr(name) for p in error["loc"]]
    place = [
        p for i, p in enumerate(place) if not (p in tags and i >= 2) and "constrained" not in p
    ]
    key = ".".join(place)
    context = error.get("ctx", {})
    match error["type"]:
        case "extra_forbidden":
            close = difflib.get_close_matches(place[-1], allowed, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"allowed: {', '.join(allowed)}"
            text = f"unknown key; {hint}"
        case "missing":
            text = "is missing; add it"
        case "literal_error" | "union_tag_invalid":
            expected = context.get("expected") or context.get("expected_tags")
            value = error["input"]
            if error["type"] == "union_tag_invalid":
                key, value = f"{key}.runtime", context["tag"]
                runtimes = [tag for tag in expected.split(", ") if " " not in tag]
                expected = ", ".join(runtimes)  # not what stands in place of a runtime
            text = f"{shown(value)} is not one of {expected}{nearest(value, expected)}"
        case "union_tag_not_found":
            text = "runtime is missing; add it, such as 'transformers' or 'llama.cpp'"
        case "string_pattern_mismatch":
            text = f"{shown(error['input'])} is not allowed; it must match {context['pattern']}"
        case "value_error":
            text = str(context["error"])
        case _:
            text = f"{error['msg'][0].lower()}{error['msg'][1:]} (found {shown(error['input'])})"
    return f"{origin}: {key}: {text}" if key else f"{origin}: {text}"


def nearest(value: Any, expected: str) -> str:
    """The quoted one of ``expected`` that a value comes near, whatever its case, as a question."""
    names = {name.lower(): name for name in re.findall(r"'([^']*)'", expected)}
    close = difflib.get_close_matches(str(value).lower(), names, n=1, cutoff=0.8)
    return f"; did you mean {names[close[0]]!r}?" if close else ""


def shown(value: Any) -> str:
    """A value on one line, cut short where it is long."""
    text = repr(value)
    return text if len(text) <= 80 else text[:60] + "…"


def existing(key: str, path: str) -> str:
    """The path, if the file that the config names exists; else exit with one line."""
    if Path(path).is_file():
        return path
    sys.exit(f"error: {key}: {path}: there is no such file; correct the path")
