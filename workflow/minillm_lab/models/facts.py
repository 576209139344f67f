"""Facts of a model file: bytes, checksum, parameters, bits per weight, tensor types."""

import argparse
import json
from collections import Counter
from collections.abc import Collection
from math import prod
from pathlib import Path
from typing import Any

from minillm_lab.experiment.libraries import bits_of
from minillm_lab.header import Header, read_gguf
from minillm_lab.jobs.command import run
from minillm_lab.jobs.errors import LabError
from minillm_lab.jobs.files import (
    CONTENTS,
    ONNX,
    OPENVINO,
    gguf_files,
    sha256_of,
    weight_files,
    write_text,
)
from minillm_lab.models.openvino_tensors import openvino_tensors

BITS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "F8_E4M3": 8, "F8_E5M2": 8, "I8": 8, "U8": 8}
BITS |= {"I16": 16, "U16": 16, "I32": 32, "U32": 32}
SUPER_BLOCK = 256  # values that a K-quant packs together
EMBEDDINGS = ("token_embd.weight", "model.embed_tokens.weight")  # a token reads one row
OUTPUTS = ("output.weight", "lm_head.weight")  # without one, the embedding is the output as well
EXPERTS = ("_exps.", ".experts.")  # a token reads some of them
Tensors = list[tuple[str, str, int, int, int]]  # name, type, elements, bytes, row length


def facts_of(weights: Path, original: Path | None = None) -> dict[str, Any]:
    """Facts of a GGUF file, or a folder with its parts, safetensors, ONNX's or OpenVINO's files.

    ``type`` is a GGUF's quantization type by its header, and ``imatrix`` what it says of the
    importance matrix that it was made with; None for safetensors. ``original``: the safetensors
    that another library than llama.cpp converted, if one did.
    ``bits_per_weight`` is 8 × tensor bytes / parameters, and ``tensor_types`` is the share of the
    parameters that each type holds, largest first. Both count all tensors of the file, also a
    second copy of an embedding; but parameters of ONNX are those of ``original``.
    """
    files = weight_files(weights)
    as_gguf = bool(gguf_files(weights))
    header = read_gguf(weights) if as_gguf else None
    as_onnx = any(file.name == ONNX for file in files)
    in_openvino = any(file.name in OPENVINO for file in files)
    source = original if original and (as_onnx or in_openvino) else weights
    tensors, context = _gguf(header) if header else _safetensors(source)
    whole = sum(elements for _, _, elements, _, _ in tensors)
    if as_onnx:
        tensors = _onnx(weights)
    elif in_openvino:
        tensors = openvino_tensors(weights, tensors)
    elif original:
        tensors = _packed(tensors, _safetensors(original)[0], packed_type(weights.name))
    parameters, odd_rows = Counter[str](), Counter[str]()
    for _, held_as, elements, _, row in tensors:
        parameters[held_as] += elements
        if row % SUPER_BLOCK and row < elements:  # vectors are never quantized
            odd_rows[str(row)] += elements
    total = parameters.total()
    of_model = whole if as_onnx else total
    kinds = {"gguf": as_gguf, "onnx": as_onnx, "openvino": in_openvino}
    format_ = next((kind for kind, is_it in kinds.items() if is_it), "safetensors")
    if not total:
        raise LabError(f"{weights}: holds no tensors; name another file")
    return {
        "format": format_,
        "type": header.type if header else None,
        "imatrix": header.imatrix if header else None,
        "files": [
            {"path": str(file), "bytes": file.stat().st_size, "sha256": sha256_of(file)}
            for file in files
        ],
        "parameters": of_model,
        "bits_per_weight": 8 * sum(size for _, _, _, size, _ in tensors) / of_model,
        "tensor_types": {held_as: n / total for held_as, n in parameters.most_common()},
        "rows_not_of_256": {row: n / total for row, n in odd_rows.most_common()},
        "context": context,
        "read_bytes": read_bytes(tensors),
    }


def packed_type(form: str) -> str:
    """The type of quantized weights in a form: NF4, INT8, INT4."""
    return f"{'NF' if '-nf' in form else 'INT'}{bits_of(form) or ''}"


def read_bytes(tensors: Tensors) -> int | None:
    """Bytes of weights that decoding one token reads; None if that depends on the token."""
    names = {name for name, *_ in tensors}
    if any(expert in name for name in names for expert in EXPERTS):
        return None
    skipped = EMBEDDINGS if names & {*OUTPUTS} else ()
    return sum(size for name, _, _, size, _ in tensors if name not in skipped)


def _gguf(header: Header) -> tuple[Tensors, int | None]:
    """The tensors, and the tokens of context that the model is made for, if it says."""
    found = [(t.name, t.type, prod(t.shape), t.bytes, t.shape[0]) for t in header.tensors]
    return found, header.context


def _safetensors(folder: Path) -> tuple[Tensors, int | None]:
    """The same for a folder of safetensors."""
    from safetensors import SafetensorError, safe_open

    found = []
    for path in weight_files(folder):
        try:
            with safe_open(path, framework="numpy") as file:
                for name in file.keys():  # noqa: SIM118 (not a mapping)
                    tensor = file.get_slice(name)
                    shape, type_ = tensor.get_shape(), tensor.get_dtype()
                    elements, row = prod(shape), (shape or [1])[-1]
                    size = elements * BITS.get(type_, 64) // 8
                    found.append((name, type_, elements, size, row))
        except SafetensorError as error:
            raise LabError(
                f"{path}: not a readable safetensors file: {error}; fetch it again"
            ) from error
    config = folder / "config.json"
    said = json.loads(config.read_bytes()) if config.exists() else {}
    context = said.get("max_position_embeddings")
    return found, context if isinstance(context, int) else None


def _onnx(folder: Path) -> Tensors:
    """The weights of a model as ONNX, each with its scales, as ``models.pack_onnx`` found them."""
    try:
        return [tuple(each) for each in json.loads((folder / CONTENTS).read_bytes())["tensors"]]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise LabError(
            f"{folder}: {CONTENTS} does not say what it holds; delete the folder to make it again"
        ) from error


def _packed(stored: Tensors, original: Tensors, type_: str) -> Tensors:
    """The original tensors as another library stored them, each with all its bytes.

    Beside a quantized weight lie its scales and tables: tensors of the same layer that the original
    does not have. ``type_`` is that of quantized weights. What was not stored, such as a second
    copy of an embedding, is left out.
    """
    names, by_layer = {name for name, *_ in original}, dict[str, Tensors]()
    for one in stored:
        by_layer.setdefault(one[0].rpartition(".")[0], []).append(one)
        if ".weight." in one[0]:  # tables of bitsandbytes
            by_layer.setdefault(one[0].partition(".weight.")[0], []).append(one)
    found, taken = list[tuple[str, str, int, int, int]](), set[str]()
    for name, _, elements, _, row in original:
        layer, _, kind = name.rpartition(".")
        near = by_layer.get(layer) or by_layer.get(f"model.{layer}", [])
        ends = (name, f"model.{name}")
        own = [t for t in near if t[0] in ends or (kind == "weight" and of_weight(t[0], names))]
        if own:
            plain = len(own) == 1 and own[0][2] == elements
            size = sum(bytes_ for *_, bytes_, _ in own)
            found.append((name, own[0][1] if plain else type_, elements, size, row))
            taken |= {t[0] for t in own}
    return found + _experts(found, stored, taken, original, type_)


def _experts(
    found: Tensors, stored: Tensors, taken: Collection[str], original: Tensors, type_: str
) -> Tensors:
    """The experts' weights in one, where they are stored together under other names."""
    known = {name for name, *_ in found}
    lost = [t for t in original if t[0] not in known and any(e in t[0] for e in EXPERTS)]
    left = [t for t in stored if t[0] not in taken]
    if not lost or not left:
        return []
    elements = sum(t[2] for t in lost)
    held_as = left[0][1] if elements == sum(t[2] for t in left) else type_
    return [(lost[0][0], held_as, elements, sum(t[3] for t in left), lost[0][4])]


def of_weight(name: str, original: Collection[str]) -> bool:
    """Whether a stored tensor belongs to its layer's weight: the original does not have it."""
    return name not in original and name.removeprefix("model.") not in original


def main(arguments: argparse.Namespace) -> None:
    write_text(
        arguments.output,
        json.dumps(facts_of(arguments.weights, arguments.original), indent=1) + "\n",
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, required=True, help="a GGUF file or a folder")
    parser.add_argument("--original", type=Path, nargs="?", help="what was quantized, if not GGUF")
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)
