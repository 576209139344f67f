"""An importance matrix: how large the inputs of each weight matrix are, over a calibration text.

llama.cpp's quantizer rounds a weight more carefully where its input is large. For every matrix in
the model's blocks, the squares of its inputs are summed by column while llama.cpp evaluates the
text. The file is a GGUF as llama.cpp's own tools read and write it: ``<matrix>.in_sum2``, the sums,
and ``<matrix>.counts``, of how many rows; with experts, one row of sums for each. It may come from
elsewhere, so nothing in it is used before its shape and values have been checked.
"""

import argparse
import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import c_char, c_char_p, c_int, c_int32, c_int64, c_size_t, c_void_p
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
from llama_cpp._ggml import libggml
from numpy.typing import NDArray

from minillm_lab.ggml import gguf
from minillm_lab.header import read_header
from minillm_lab.jobs.command import progress, run, say
from minillm_lab.jobs.errors import LabError
from minillm_lab.jobs.files import read_text, written_whole
from minillm_lab.jobs.limits import physical_cores
from minillm_lab.runtimes.llama_library import load_model, said, tokenize

CHUNK = 512  # tokens
MOST_ROWS = 2**53  # that a matrix made elsewhere may have counted
LEAST = 16  # rows; llama.cpp's own tool leaves smaller batches out
F32, I32 = 0, 26  # enum ggml_type
SUMS, COUNTS = ".in_sum2", ".counts"


class Tensor(ctypes.Structure):
    """ggml's tensor, as the pinned llama-cpp-python lays it out; ``Collector`` checks that."""

    _fields_ = [
        ("type", c_int),
        ("buffer", c_void_p),
        ("ne", c_int64 * 4),
        ("nb", c_size_t * 4),
        ("op", c_int),
        ("op_params", c_int32 * 16),
        ("flags", c_int32),
        ("src", c_void_p * 10),
        ("view_src", c_void_p),
        ("view_offs", c_size_t),
        ("data", c_void_p),
        ("name", c_char * 64),
    ]


@dataclass
class Inputs:
    """Of one matrix: sums of squared inputs, shape (experts, columns), and rows by expert.

    A tensor that holds several matrices without a choice between them has one row for all.
    """

    sums: NDArray[np.float64]
    counts: NDArray[np.int64]

    @property
    def means(self) -> NDArray[np.float32]:
        """The mean squares, shape (experts · columns,); 1 for an expert that no token chose."""
        rows = self.counts[:, None]
        return np.where(rows, self.sums / np.maximum(rows, 1), 1).astype(np.float32).ravel()


@dataclass(frozen=True)
class Imatrix:
    """An importance matrix: the inputs by the names of the model's tensors, and their origin."""

    found: dict[str, Inputs]
    dataset: str  # the text's name
    chunks: int


class Collector:
    """Sums the squared inputs of the matrices that llama.cpp multiplies by, called at each step."""

    def __init__(self) -> None:
        for function, kinds, result in (
            ("ggml_op_name", [c_int], c_char_p),
            ("ggml_get_name", [c_void_p], c_char_p),
            ("ggml_nelements", [c_void_p], c_int64),
            ("ggml_backend_tensor_get", [c_void_p, c_void_p, c_size_t, c_size_t], None),
        ):
            getattr(libggml, function).argtypes = kinds
            getattr(libggml, function).restype = result
        self.found: dict[str, Inputs] = {}
        self.error: Exception | None = None
        self.callback = llama_cpp.ggml_backend_sched_eval_callback(self._called)

    def _called(self, pointer: int, asked: bool, user_data: Any) -> bool:
        """Whether a result is wanted, if ``asked``; then, with the result, whether to go on."""
        try:
            return self._see(pointer, asked)
        except Exception as error:  # ctypes would print it and go on
            self.error = error
            return False

    def _see(self, pointer: int, asked: bool) -> bool:
        result = Tensor.from_address(pointer)
        kind = libggml.ggml_op_name(result.op)
        if kind not in (b"MUL_MAT", b"MUL_MAT_ID"):
            return not asked
        matrix, inputs = (Tensor.from_address(result.src[i]) for i in (0, 1))
        name = libggml.ggml_get_name(result.src[0])
        if name != matrix.name or libggml.ggml_nelements(result.src[1]) != np.prod(inputs.ne):
            raise LabError(
                "this llama-cpp-python lays its tensors out in another way than the lab knows;"
                " install the version in pyproject.toml, or name an imatrix made elsewhere"
            )
        if not name.startswith(b"blk.") or inputs.type != F32:
            return not asked
        if kind == b"MUL_MAT" and inputs.ne[1] < LEAST:
            return not asked
        if asked:
            return True
        values = values_of(result.src[1], inputs, np.float32)
        chosen = None
        if kind == b"MUL_MAT_ID":
            ids = Tensor.from_address(result.src[2])
            chosen = values_of(result.src[2], ids, np.int32)[0, 0]
        if chosen is None:
            self._add(name.decode(), values, matrix.ne[2] * matrix.ne[3])
        else:
            self._add_chosen(name.decode(), values[0], chosen, matrix.ne[2])
        return True

    def _add(self, name: str, values: NDArray[np.float32], matrices: int) -> None:
        """Add inputs of shape (…, rows, columns), which go to the tensor's matrices in turn."""
        *_, rows, columns = values.shape
        of_matrix = values.reshape(-1, matrices, rows, columns)
        kept = self._kept(name, 1, matrices * columns)
        kept.sums[0] += np.einsum("tmrc,tmrc->mc", of_matrix, of_matrix, dtype=np.float64).ravel()
        kept.counts += len(of_matrix) * rows

    def _add_chosen(
        self, name: str, values: NDArray[np.float32], chosen: NDArray[np.int32], experts: int
    ) -> None:
        """Add inputs of experts, shape (tokens, used or 1, columns).

        ``chosen`` holds the experts that each token uses, shape (tokens, used).
        """
        columns = values.shape[-1]
        kept = self._kept(name, experts, columns)
        by_slot = np.broadcast_to(values, (*chosen.shape, columns))
        for expert in np.unique(chosen):
            own = by_slot[chosen == expert]
            kept.sums[expert] += np.einsum("rc,rc->c", own, own, dtype=np.float64)
            kept.counts[expert] += len(own)

    def _kept(self, name: str, experts: int, columns: int) -> Inputs:
        nothing = Inputs(np.zeros((experts, columns)), np.zeros(experts, np.int64))
        return self.found.setdefault(name, nothing)


def values_of(pointer: int, tensor: Tensor, dtype: Any) -> NDArray[Any]:
    """A copy of a tensor's values, slowest dimension first, wherever they are held."""
    shape, strides = tuple(tensor.ne)[::-1], tuple(tensor.nb)[::-1]
    size = sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    held = np.empty(size + np.dtype(dtype).itemsize, np.uint8)
    libggml.ggml_backend_tensor_get(pointer, held.ctypes.data, 0, len(held))
    return np.ndarray(shape, dtype, held, strides=strides)


@contextmanager
def evaluating(weights: Path, collector: Collector) -> Iterator[tuple[Any, Any]]:
    """A model and a context for one chunk, whose steps the collector sees.

    On the CPU: a GPU works on copies of the matrices, by other names.
    """
    model = load_model(weights, n_gpu_layers=0)
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = params.n_batch = params.n_ubatch = CHUNK
    params.n_threads = params.n_threads_batch = physical_cores()
    params.offload_kqv = params.op_offload = False
    params.cb_eval = collector.callback
    context = llama_cpp.llama_init_from_model(model, params)
    try:
        if not context:
            raise LabError(f"{weights}: llama.cpp cannot make a context: {said('out of memory')}")
        yield model, context
    finally:
        if context:
            llama_cpp.llama_free(context)
        llama_cpp.llama_model_free(model)


def chunks_of(model: Any, text: str) -> list[list[int]]:
    """The text's whole chunks of tokens, each with the model's own first token, if any."""
    vocabulary = llama_cpp.llama_model_get_vocab(model)
    ids = tokenize(model, text, special=False, plain=True)
    chunks = [ids[i : i + CHUNK] for i in range(0, len(ids) - CHUNK + 1, CHUNK)]
    if llama_cpp.llama_vocab_get_add_bos(vocabulary):
        first = llama_cpp.llama_vocab_bos(vocabulary)
        chunks = [[first, *chunk[1:]] for chunk in chunks]
    return chunks


def collect(weights: Path, text: str, dataset: str, most: int | None = None) -> Imatrix:
    """The importance matrix of a model, a GGUF file, over a text named ``dataset``.

    Of the text, at most ``most`` chunks are read, spread evenly over it. Raises LabError if the
    text is shorter than a chunk, or llama.cpp cannot evaluate it.
    """
    collector = Collector()
    with evaluating(weights, collector) as (model, context):
        if not (chunks := chunks_of(model, text)):
            raise LabError(f"the calibration text has fewer than {CHUNK} tokens; name a longer one")
        count = min(len(chunks), most or len(chunks))
        chunks = [chunks[i * len(chunks) // count] for i in range(count)]
        batch = llama_cpp.llama_batch_init(CHUNK, 0, 1)
        try:
            with progress("importance matrix", len(chunks) * CHUNK, "tokens") as advance:
                for chunk in chunks:
                    llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
                    batch.n_tokens = CHUNK
                    for i, token in enumerate(chunk):
                        batch.token[i], batch.pos[i], batch.logits[i] = token, i, True
                        batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
                    status = llama_cpp.llama_decode(context, batch)
                    if collector.error:
                        raise collector.error
                    if status:
                        raise LabError(f"{weights}: llama.cpp failed: {said('it gave no reason')}")
                    advance(CHUNK)
        finally:
            llama_cpp.llama_batch_free(batch)
    for name, inputs in collector.found.items():
        if not np.isfinite(inputs.sums).all():
            raise LabError(
                f"{weights}: the inputs of {name} are not numbers, so there is no importance"
                " matrix of it; set imatrix: none"
            )
    return Imatrix(collector.found, dataset, len(chunks))


def write_imatrix(matrices: Imatrix, output: Path) -> None:
    """Write an importance matrix as llama.cpp's tools do."""
    with written_whole(output) as part:
        writer = gguf.GGUFWriter(part, "")
        writer.add_type("imatrix")
        writer.add_array("imatrix.datasets", [matrices.dataset])
        writer.add_uint32("imatrix.chunk_count", matrices.chunks)
        writer.add_uint32("imatrix.chunk_size", CHUNK)
        for name, inputs in sorted(matrices.found.items()):
            writer.add_tensor(name + SUMS, inputs.sums.astype(np.float32))
            writer.add_tensor(name + COUNTS, inputs.counts[:, None].astype(np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def read_imatrix(path: Path) -> Imatrix:
    """An importance matrix, ours or another's.

    Raises LabError if the file is not one, or if what it holds cannot be.
    """
    header = read_header(path)
    tensors = {tensor.name: tensor for tensor in header.tensors}
    names = [name.removesuffix(SUMS) for name in tensors if name.endswith(SUMS)]
    if header.kind != "imatrix" or not names or len(tensors) != 2 * len(names):
        raise LabError(f"{path}: a GGUF file, but no importance matrix; name another file")
    found = {}
    with path.open("rb") as file:
        for name in names:
            pair = []
            for tensor in (tensors[name + SUMS], tensors.get(name + COUNTS)):
                if tensor is None or tensor.type != "F32":
                    raise LabError(f"{path}: {name} lacks sums or counts in F32; name another file")
                file.seek(header.data + tensor.offset)
                values = np.frombuffer(file.read(tensor.bytes), "<f4")
                pair.append(values.reshape(tensor.shape[::-1]))
            sums, counts = pair
            finite = np.isfinite(sums).all() and (counts == np.floor(counts)).all()
            if not finite or sums.min() < 0 or counts.min() < 0 or counts.max() > MOST_ROWS:
                raise LabError(f"{path}: {name} holds values that no sum of squares can be")
            if sums.size % counts.size:
                raise LabError(f"{path}: {name} has {sums.size} sums and {counts.size} counts")
            rows = sums.reshape(counts.size, -1).astype(np.float64)
            found[name] = Inputs(rows, counts.ravel().astype(np.int64))
    return Imatrix(found, header.dataset or "unknown", header.chunks or 0)


def calibration_text(path: Path) -> str:
    """A calibration text. Raises LabError where it is none."""
    if path.suffix == ".dat":
        raise LabError(
            f"{path}: an importance matrix of the older form; llama-imatrix --in-file {path.name}"
            " --output-format gguf -o new.gguf makes a GGUF of it"
        )
    return read_text(path)


def main(arguments: argparse.Namespace) -> None:
    say(f"importance matrix of {arguments.weights}")
    text = calibration_text(arguments.text)
    found = collect(arguments.weights, text, arguments.text.name, arguments.chunks)
    write_imatrix(found, arguments.output)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, required=True, help="the unquantized GGUF")
    parser.add_argument("--text", type=Path, required=True, help="the calibration text, UTF-8")
    parser.add_argument("--chunks", type=int, nargs="?", help="how many of its chunks, at most")
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)
