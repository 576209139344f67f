"""What a model converted for OpenVINO stores of each of its original tensors."""

from math import prod
from pathlib import Path
from xml.etree import ElementTree

from minillm_lab.jobs.errors import LabError
from minillm_lab.jobs.files import OPENVINO

Tensors = list[tuple[str, str, int, int, int]]  # name, type, elements, bytes, row length
OWN = "self.model."  # how names of constants begin
BASES = ("model", "transformer", "gpt_neox")  # where a checkpoint is of a base model alone
FLOATS = ("F32", "F16", "BF16")  # of norms, which some models have for each head
HALVES = "._openvino_orig_"  # in those of 16 bits, before weight or bias


def openvino_tensors(folder: Path, original: Tensors) -> Tensors:
    """The original tensors as the folder stores them, each with the bytes of its scales as well.

    Types are OpenVINO's, in capitals. What has no name of its own, such as scales of norms, is
    known by its number of elements; OpenVINO leaves out scales that are all one.
    Raises LabError if a matrix is missing.
    """
    stored = dict[str, tuple[str, int]]()  # type and elements of named weights
    size, nameless, places = dict[str, int](), list[tuple[str, int, int]](), set[str]()
    names = {alias: name for name, *_ in original for alias in aliases(name)}
    for layer in ElementTree.parse(folder / OPENVINO[0]).iter("layer"):
        data = layer.find("data")
        if layer.get("type") != "Const" or data is None:
            continue
        type_, bytes_ = str(data.get("element_type")).upper(), int(data.get("size", 0))
        elements = prod(map(int, filter(None, str(data.get("shape")).split(","))))
        name, _, part = str(layer.get("name")).partition("/")
        name = name.removeprefix(OWN).replace(HALVES, ".")
        if str(data.get("offset")) in places:
            bytes_ = 0  # stored once, used twice
        places.add(str(data.get("offset")))
        if name not in names:
            nameless.append((type_, elements, bytes_))
            continue
        name = names[name]
        size[name] = size.get(name, 0) + bytes_
        if not part:
            stored[name] = type_, elements
    found = []
    for name, _, elements, _, row in original:
        if name in stored and stored[name][1] == elements:
            found.append((name, stored[name][0], elements, size[name], row))
            continue
        alike = next(
            (t for t in nameless if t[1] == elements and (row == elements or t[0] in FLOATS)), None
        )
        if alike:
            nameless.remove(alike)
        elif row < elements:
            raise LabError(f"{folder}: it is not known what was stored of {name}")
        type_, _, bytes_ = alike or ("F32", elements, 0)
        found.append((name, type_, elements, bytes_, row))
    return found


def aliases(name: str) -> list[str]:
    """The names that a tensor of a checkpoint may have in Transformers' model of it."""
    known = name.replace("embed_out.", "lm_head.")  # GPT-NeoX
    return [name, known, *(f"{base}.{name}" for base in BASES)]
