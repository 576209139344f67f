"""A model as ONNX, made by the model builder of ONNX Runtime GenAI from safetensors.

Beside the model lies ``CONTENTS``: the builder's options, and what each weight is stored in.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.helper import get_attribute_value, tensor_dtype_to_np_dtype
from transformers import AutoConfig, AutoTokenizer

from minillm_lab.experiment.onnx import options_of
from minillm_lab.jobs.command import log, run, say
from minillm_lab.jobs.errors import LabError, first_line
from minillm_lab.jobs.files import CONTENTS, ONNX, check_space, written_whole
from minillm_lab.jobs.limits import physical_cores
from minillm_lab.jobs.watcher import dies_with
from minillm_lab.models.agreement import check_agreement
from minillm_lab.models.facts import facts_of
from minillm_lab.runtimes import Options, Passage
from minillm_lab.runtimes.onnx import Onnx

FLOATS = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
TABLES = ("cos_cache", "sin_cache")  # of positions; they are no weights
BUILT, NOT_BUILT = ("default", "llama3"), ("olmo",)  # kinds of scaling in Llama; architectures
MOST = 1e-3  # nats that rounding may cause in float32
TRIED = 64  # tokens of context in which the model is tried
FIXED = {"hf_token": "false", "hf_remote": "false", "kv_cache_quant_scheme": "none"}


def pack(safetensors: Path, form: str, output: Path) -> None:
    """Convert a folder of safetensors to a form of ``experiment.onnx``, as a whole or not at all.

    Raises LabError if the model builder cannot, or ONNX Runtime cannot load what it made.
    """
    precision, options = options_of(form)
    check_space(output, 4 * int(facts_of(safetensors)["parameters"]))
    try:
        check_known(safetensors)
        with written_whole(output) as part:
            build(safetensors, part, precision, options)
            about = {**options, **contents(part / ONNX)}
            (part / CONTENTS).write_text(json.dumps(about) + "\n", "utf-8")
            AutoTokenizer.from_pretrained(
                safetensors, local_files_only=True, trust_remote_code=False
            ).save_pretrained(part)
            try_out(safetensors, part, precision)
    except (LabError, MemoryError):
        raise
    except Exception as error:  # the libraries raise errors of every kind
        raise LabError(refused(safetensors, form, first_line(error))) from error


def check_known(safetensors: Path) -> None:
    """Raise ValueError for what the model builder is known to build wrongly without a word."""
    config = AutoConfig.from_pretrained(safetensors, local_files_only=True, trust_remote_code=False)
    rope = getattr(config, "rope_parameters", None) or {}
    if config.model_type == "llama" and rope.get("rope_type", "default") not in BUILT:
        raise ValueError(f"the model builder does not scale positions as {rope['rope_type']} does")
    if config.model_type in NOT_BUILT:
        raise ValueError(f"the model builder builds {config.model_type} otherwise than it is")


def try_out(safetensors: Path, folder: Path, precision: str) -> None:
    """Raise an error if ONNX Runtime cannot compute what was made, or computes something else."""
    runtime = Onnx()
    options = Options(threads=physical_cores(), context=TRIED)
    runtime.prepare(folder, options)
    runtime.load(folder, options)
    try:
        if precision == "fp32":  # what is quantized differs from it in any case
            whole = partial(logits_of, runtime)
            check_agreement(safetensors, whole, "float32", MOST)
        else:
            runtime.prefill([1, 1])
            runtime.decode(1)
    finally:
        runtime.unload()


def logits_of(runtime: Onnx, ids: list[int]) -> NDArray[np.float32]:
    return runtime.logits_of([Passage(ids, 0)])


def refused(safetensors: Path, form: str, why: str) -> str:
    return (
        f"{safetensors}: ONNX Runtime GenAI cannot make {form} of it: {why}; run this model in"
        " another runtime"
    )


def build(safetensors: Path, output: Path, precision: str, options: dict[str, Any]) -> None:
    """Let the model builder write the model, in a process of its own. Raises RuntimeError.

    Its modules have names such as ``builders``, which others may have as well.
    """
    given = [f"{key}={value}" for key, value in (FIXED | options).items()]
    command = [
        *(sys.executable, "-P", "-m", "onnxruntime_genai.models.builder"),
        *("--input", str(safetensors), "--output", str(output), "--precision", precision),
        *("--execution_provider", "cpu", "--cache_dir", str(output.parent / "cache")),
        *("--extra_options", *given),
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, preexec_fn=dies_with(os.getpid())
    )
    log.info("%s\n%s", done.stdout, done.stderr)
    if done.returncode < 0:
        raise MemoryError(f"the model builder was ended by signal {-done.returncode}")
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it gave no reason"])[-1]
        if missed := re.fullmatch(r"KeyError: (.+)", last):
            raise RuntimeError(f"the model builder misses {missed[1]} in the model's config")
        raise RuntimeError(re.sub(r"^\w+(Error|Exception): ", "", last))


def contents(file: Path) -> dict[str, Any]:
    """What an ONNX file holds and computes in, without reading its weights.

    ``tensors``: name as in safetensors, type, elements, bytes and row length of each.
    """
    graph = onnx.load(file, load_external_data=False).graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    kinds = {v.name: kind_of(v.type.tensor_type.elem_type) for v in [*graph.input, *graph.output]}
    tensors = []
    for node in graph.node:
        if node.op_type == "MatMulNBits":
            about = {one.name: get_attribute_value(one) for one in node.attribute}
            own = [stored.pop(name) for name in node.input[1:4] if name in stored]
            size, type_ = sum(map(bytes_of, own)), f"INT{about['bits']}"
            name = plain_name(node.input[1])
            tensors.append((name, type_, about["K"] * about["N"], size, about["K"]))
    for name, tensor in stored.items():
        type_ = FLOATS.get(kind_of(tensor.data_type), "")
        if type_ and not name.startswith(("/", *TABLES)):
            elements = prod(tensor.dims)
            row = tensor.dims[0 if ".MatMul." in name else -1]  # products hold it transposed
            tensors.append((plain_name(name), type_, elements, bytes_of(tensor), row))
    floats = [t for t in tensors if t[1] in {*FLOATS.values()}]
    matrices = [name.removesuffix(".weight") for name, _, n, _, row in floats if n > row]
    return {
        "compute": kinds["logits"],
        "kv_cache": kinds["past_key_values.0.key"],
        "unquantized": [*matrices, "vectors"] if len(floats) < len(tensors) else "all",
        "tensors": tensors,
    }


def kind_of(number: int) -> str:
    """The name of a type that ONNX numbers, such as float32."""
    return str(tensor_dtype_to_np_dtype(number).name)


def bytes_of(tensor: Any) -> int:
    """Bytes of a tensor, whose values may lie in another file."""
    size: int = tensor_dtype_to_np_dtype(tensor.data_type).itemsize * prod(tensor.dims)
    return size


def plain_name(name: str) -> str:
    """The name of a weight as safetensors have it: without that of the node that reads it."""
    return re.sub(r"\.MatMul\.weight.*", ".weight", name).replace("layernorm", "norm")


def main(arguments: argparse.Namespace) -> None:
    say(f"converting {arguments.safetensors} to {arguments.form}")
    pack(arguments.safetensors, arguments.form, arguments.output)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--safetensors", type=Path, required=True)
    parser.add_argument("--form", required=True, help="such as onnx-fp32")
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)
