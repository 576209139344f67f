"""Check that a quantization stores tensors as its mixture asks, before it is made.

llama.cpp takes for a tensor the first pattern that is found in its name. It leaves norms and other
small tensors as they are, and takes another type where a row does not divide into blocks.
"""

import re
from collections.abc import Container, Mapping

from minillm_lab.ggml import GGML_QUANT_SIZES, GGMLQuantizationType
from minillm_lab.header import Header
from minillm_lab.jobs.errors import LabError

NEEDS_MATRIX = ("IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ2_S", "IQ1_S", "IQ1_M")  # in a layer
NEVER_WITHOUT_MATRIX = ("IQ2_XXS", "IQ2_XS", "IQ1_S")  # llama.cpp aborts (ggml_quantize_chunk)
MOST_NAMED = 30


def asked(mixture: Mapping[str, str], header: Header) -> dict[str, str]:
    """The pattern that decides for a tensor, by the tensor's name.

    Raises LabError for a pattern that decides for none.
    """
    names = [tensor.name for tensor in header.tensors]
    found = {n: next((p for p in mixture if re.search(p, n)), None) for n in names}
    for pattern in mixture:
        if pattern in found.values():
            continue
        if any(re.search(pattern, name) for name in names):
            raise LabError(
                f"tensors: earlier patterns match all that {pattern!r} does; write it before them,"
                " or leave it out"
            )
        kinds = {re.sub(r"^blk\.\d+\.|\.weight$", "", name) for name in names}
        listed = ", ".join(sorted(k for k in kinds if k.isprintable())[:MOST_NAMED])
        raise LabError(f"tensors: {pattern!r} matches no tensor of the model; it has {listed}")
    return {name: pattern for name, pattern in found.items() if pattern is not None}


def check(
    mixture: Mapping[str, str],
    header: Header,
    types: Mapping[str, str],
    overridden: Container[str],
    fell_back: Container[str],
    with_means: Container[str],
) -> None:
    """Raise LabError unless ``types``, which llama.cpp chose, are those that a mixture asks for.

    ``overridden`` and ``fell_back``: the tensors of which llama.cpp says that it took another type,
    because of a pattern or of their rows. ``with_means``: those of which the importance matrix
    holds mean squares.
    """
    patterns, obeyed = asked(mixture, header), set[str]()
    for tensor in header.tensors:
        name, type_, pattern = tensor.name, types[tensor.name], patterns.get(tensor.name)
        wanted = mixture[pattern] if pattern else None
        if pattern and type_ == wanted:
            obeyed.add(pattern)
            if type_ in NEVER_WITHOUT_MATRIX and name not in with_means:
                raise LabError(
                    f"tensors: {pattern!r} asks for {type_} of {name}, which llama.cpp makes only"
                    " by an importance matrix that holds the tensor; write Q2_K for it, or a larger"
                    " type"
                )
        elif wanted and name in fell_back:
            block, _ = GGML_QUANT_SIZES[GGMLQuantizationType[wanted]]
            raise LabError(
                f"tensors: {pattern!r} asks for {wanted} of {name}, whose rows of"
                f" {tensor.shape[0]} are not divisible by {block}, so llama.cpp would take {type_};"
                f" write {type_} for it"
            )
        elif name in overridden or (wanted and type_ != tensor.type):
            raise LabError(
                f"tensors: llama.cpp reads a pattern otherwise than Python does, and would store"
                f" {name} in {type_}; write it with names and . * + ? | ( ) [ ] ^ $ alone"
            )
    if idle := next((p for p in mixture if p not in obeyed), None):
        name = next(name for name, pattern in patterns.items() if pattern == idle)
        raise LabError(
            f"tensors: llama.cpp quantizes no tensor that {idle!r} matches, as {name}; leave it out"
        )
