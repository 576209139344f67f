"""The config as a YAML file: checks for what YAML allows and an experiment must not hold.

Snakemake's loader keeps the last of two equal keys, copies what an alias stands for at each
mention, and runs Python where a file asks for it. This check reads the file first and builds
nothing from it.
"""

from pathlib import Path

import yaml

from minillm_lab.jobs.errors import LabError, first_line

MOST_ENTRIES = 100_000  # mappings, lists and values, each alias counted for what it stands for
RUNS_PYTHON = "__use_yte__"  # to Snakemake


def check_config_file(path: Path) -> None:
    """Raise LabError where a key stands twice, runs Python, or aliases multiply."""
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        if root is not None and _entries(root, str(path), {}) > MOST_ENTRIES:
            raise LabError(
                f"{path}: its aliases stand for more than {MOST_ENTRIES} entries; write fewer"
            )
    except OSError as error:
        raise LabError(f"{path}: {error.strerror}") from error
    except yaml.MarkedYAMLError as error:
        at, begun = error.problem_mark, error.context_mark  # begun: an open quote, bracket, block
        line = f"line {at.line + 1}: " if at else ""
        within = f" (in what begins in line {begun.line + 1})" if begun else ""
        what = ", ".join(filter(None, (error.context, error.problem)))
        raise LabError(
            f"{path}: {line}not YAML that can be read: {what}{within};"
            " check the quotes, brackets and indentation"
        ) from error
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        raise LabError(f"{path}: not YAML that can be read: {first_line(error)}") from error


def _entries(node: yaml.Node, place: str, known: dict[int, int]) -> int:
    """How many entries a node stands for; it is counted once, however often it is mentioned."""
    if id(node) in known:
        if known[id(node)] == 0:
            raise LabError(
                f"{place}: an alias stands for a value that holds the alias itself; remove it"
            )
        return known[id(node)]
    known[id(node)] = 0  # still open
    children: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            name = str(key.value)
            if isinstance(key, yaml.ScalarNode) and name in seen and name != "<<":
                raise LabError(
                    f"{place}: line {key.start_mark.line + 1}: the key {name!r:.80} stands twice;"
                    " keep one of the two"
                )
            if name == RUNS_PYTHON:
                raise LabError(f"{place}: the key {name!r} would run Python; remove it")
            seen.add(name)
            children.append(value)
    elif isinstance(node, yaml.SequenceNode):
        children = node.value
    known[id(node)] = 1 + sum(_entries(child, place, known) for child in children)
    return known[id(node)]
