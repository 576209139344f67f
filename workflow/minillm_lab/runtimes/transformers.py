"""PyTorch through Transformers, with safetensors, in eager mode, one token at a time."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from importlib import import_module
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from minillm_lab.jobs.errors import LabError, first_line
from minillm_lab.runtimes import (
    STEP,
    Options,
    Passage,
    decoded,
    importing,
    one_by_one,
    replied,
    runtime_versions,
    wanted_before,
)
from minillm_lab.runtimes.tensors import HalfProducts, library_in, parts_of, quiet

quiet()
transformers.utils.logging.disable_progress_bar()
transformers.utils.logging.set_verbosity_error()

BACKENDS = {"cpu": "CPU", "cuda": "CUDA", "mps": "Metal"}


def detect_device(wanted: str) -> str:
    """The PyTorch device for ``cpu`` or ``gpu``; without a GPU it is the CPU."""
    if wanted == "gpu" and torch.cuda.is_available():
        return "cuda"
    if wanted == "gpu" and torch.backends.mps.is_available():
        return "mps"
    return "cpu"


class Transformers:
    """A folder of safetensors in Transformers."""

    def __init__(self) -> None:
        self.model: Any = None
        self.tokenizer: Any = None
        self.cache: Any = None
        self._logits: Any = None
        self.device = "cpu"
        self.library: str | None = None  # the one that computes with quantized weights

    @importing()
    def prepare(self, weights: Path, options: Options) -> None:
        torch.zeros(1, device=detect_device(options.device))  # starts the GPU's driver
        try:
            config = AutoConfig.from_pretrained(
                weights, local_files_only=True, trust_remote_code=False
            )
            self.library = library_in(config)
            if self.library:
                import_module(self.library)
            with torch.device("meta"):
                AutoModelForCausalLM.from_config(config, trust_remote_code=False)
        except Exception as error:
            raise LabError(
                f"{weights}: Transformers cannot load it: {first_line(error)}"
            ) from error

    def load(self, weights: Path, options: Options) -> None:
        torch.set_num_threads(options.threads)
        self.device = detect_device(options.device)
        try:
            self.model = AutoModelForCausalLM.from_pretrained(
                weights,
                dtype=getattr(torch, options.dtype),
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                **({"device_map": self.device} if self.library else {}),
            )
            if self.library:
                self._compute_in(getattr(torch, options.dtype))
            else:
                self.model.to(self.device)
        except Exception as error:  # the library raises errors of every kind for a broken file
            raise LabError(
                f"{weights}: Transformers cannot load it: {first_line(error)}"
            ) from error
        self.model.eval()
        self._read_every_page()
        self._wait()
        self.weights = weights
        self.context = options.context

    def _compute_in(self, dtype: torch.dtype) -> None:
        """Turn what is not quantized into a type: Transformers takes the one of the files."""
        for tensor in self.model.parameters():  # the frequencies of positions stay in float32
            if tensor.is_floating_point() and len(parts_of(tensor)) == 1:
                tensor.data = tensor.data.to(dtype)
        for module in self.model.modules():
            if hasattr(module, "compute_dtype"):  # of 4 bits in bitsandbytes
                module.compute_dtype = dtype
        self.model.config.dtype = dtype

        with torch.inference_mode():  # bitsandbytes packs 4 bits anew for the first token
            self.model(torch.tensor([[0]], device=self.device))

    def unload(self) -> None:
        self.model = self.cache = self._logits = None
        if self.device == "cuda":
            torch.cuda.empty_cache()

    def facts(self) -> dict[str, Any]:
        on_cuda = self.device == "cuda"
        return {
            "version": runtime_versions(self.library or "transformers"),
            "backend": BACKENDS[self.device],
            "device": torch.cuda.get_device_name() if on_cuda else BACKENDS[self.device],
            "settings": {
                "context": self.context,
                "dtype": str(self.model.dtype).removeprefix("torch."),
                "attention": self.model.config._attn_implementation,
                "kv_cache": str(self.model.dtype).removeprefix("torch."),
                "build": torch.backends.cpu.get_cpu_capability(),
                **({"scored_by": "decoding"} if self._by_decoding() else {}),
            },
        }

    def _by_decoding(self) -> bool:
        """Whether tokens that are computed together change each other's activations."""
        how = getattr(self.model.config, "quantization_config", None)
        return self.library == "bitsandbytes" and bool(getattr(how, "load_in_8bit", False))

    def accelerator_memory_peak(self) -> int | None:
        if self.device == "cuda":
            return int(torch.cuda.max_memory_reserved())
        return int(torch.mps.driver_allocated_memory()) if self.device == "mps" else None

    def tokenize(self, text: str, plain: bool) -> list[int]:
        ids: list[int] = self._tokenizer()(text, add_special_tokens=plain)["input_ids"]
        return ids

    def detokenize(self, ids: list[int]) -> str:
        text: str = self._tokenizer().decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    def clear(self) -> None:
        self.cache = None

    def prefill(self, ids: list[int]) -> None:
        self._process(torch.tensor([ids], device=self.device))

    def decode(self, token: int) -> None:
        self._process(torch.tensor([[token]], device=self.device))

    def logits(self) -> NDArray[np.float32]:
        row: NDArray[np.float32] = self._logits.float().cpu().numpy()
        return row

    def logits_of(self, passages: Sequence[Passage]) -> NDArray[np.float32]:
        if self._by_decoding():
            return np.concatenate([row for passage in passages for row in decoded(self, passage)])
        if self._has_state():
            alone = one_by_one(passages)
            return np.concatenate([self._logits_of([passage]) for passage in alone])
        return self._logits_of(passages)

    @torch.inference_mode()
    def _logits_of(self, passages: Sequence[Passage]) -> NDArray[np.float32]:
        tokens: list[int] = []
        wanted: list[int] = []
        for passage in passages:
            start = len(tokens) + passage.first
            tokens += chain(passage.ids, *passage.branches)
            wanted += range(start, len(tokens))
        alone = len(passages) == 1 and len(tokens) == len(passages[0].ids)
        with HalfProducts() if self._slow_halves() else nullcontext():
            output = self.model(
                torch.tensor([tokens], device=self.device),
                use_cache=False,
                logits_to_keep=torch.tensor(wanted, device=self.device),
                **({} if alone else self._apart(passages)),
            )
        rows: NDArray[np.float32] = output.logits[0].float().cpu().numpy()
        return rows

    @torch.inference_mode()
    def replies(self, prompts: Sequence[list[int]], tokens: int) -> list[list[int]]:
        """All at once, where nothing but the attention mask joins the prompts: much faster."""
        if len(prompts) < 2 or self._needs_the_whole() or self._by_decoding():
            return [replied(self, prompt, tokens) for prompt in prompts]
        longest, cache, found = max(map(len, prompts)), None, list[torch.Tensor]()
        before = [[0] * (longest - len(prompt)) for prompt in prompts]  # so that all end together
        ids = torch.tensor([b + p for b, p in zip(before, prompts, strict=True)])
        mask = torch.tensor([b + [1] * len(p) for b, p in zip(before, prompts, strict=True)])
        ids, mask = ids.to(self.device), mask.to(self.device)
        with HalfProducts() if self._slow_halves() else nullcontext():
            while len(found) < tokens:
                places = (mask.cumsum(1) - 1).clamp(min=0)
                output = self.model(
                    ids,
                    attention_mask=mask,
                    position_ids=places[:, -ids.shape[1] :],
                    past_key_values=cache,
                    use_cache=True,
                    logits_to_keep=1,
                )
                cache, ids = output.past_key_values, output.logits[:, -1].argmax(1, keepdim=True)
                found.append(ids)
                mask = torch.cat([mask, torch.ones_like(ids)], 1)
        rows: list[list[int]] = torch.cat(found, 1).tolist()
        return rows

    def stream(self, passage: Passage) -> Iterator[NDArray[np.float32]]:
        starts, cache = range(0, len(passage.ids), STEP), None
        before = wanted_before(passage)
        if self._by_decoding():
            rows = decoded(self, passage)
            steps = ([*islice(rows, b - a)] for a, b in pairwise(before))
            yield from map(np.concatenate, filter(None, steps))
            return
        if len(starts) == 1 or self._needs_the_whole():
            whole = self._logits_of([passage])
            yield from filter(len, (whole[a:b] for a, b in pairwise(before)))
            return
        for start in starts:
            ids = passage.ids[start : start + STEP]
            wanted = range(max(passage.first - start, 0), len(ids))
            with torch.inference_mode(), HalfProducts() if self._slow_halves() else nullcontext():
                output = self.model(
                    torch.tensor([ids], device=self.device),
                    past_key_values=cache,
                    use_cache=True,
                    logits_to_keep=torch.tensor(wanted or [0], device=self.device),
                )
            cache = output.past_key_values
            if wanted:
                found: NDArray[np.float32] = output.logits[0].float().cpu().numpy()
                yield found

    def _has_state(self) -> bool:
        """Whether a layer passes a state from token to token, past any attention mask."""
        kinds = getattr(self.model.config.get_text_config(), "layer_types", None) or ()
        beside = [k for k in kinds if k == "linear_attention" or not k.endswith("attention")]
        return bool(self.model._is_stateful or beside)

    def _needs_the_whole(self) -> bool:
        """Whether a passage that comes in parts would be computed otherwise.

        A state is started by a whole passage only. Some models turn keys by the length so far.
        """
        config = self.model.config.get_text_config()
        rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None)
        return self._has_state() or any(kind in str(rope) for kind in ("longrope", "dynamic"))

    def _slow_halves(self) -> bool:
        """Whether PyTorch has no fast kernel for this model's matrix products."""
        if self.device != "cpu" or self.model.dtype != torch.float16:
            return False
        mkldnn: Any = torch.backends.mkldnn
        return not (mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_fp16_supported())

    def _apart(self, passages: Sequence[Passage]) -> dict[str, Any]:
        """Positions, and a mask that keeps passages and branches apart.

        A token sees its own passage, and in a branch also the tokens that the branch continues.
        Memory and time grow with the square of the passages' tokens.
        """
        positions: list[int] = []
        parts: list[tuple[int, int]] = []  # which passage, which branch of it from 1
        for number, passage in enumerate(passages):
            for branch, ids in enumerate((passage.ids, *passage.branches)):
                start = len(passage.ids) if branch else 0
                positions += range(start, start + len(ids))
                parts += [(number, branch)] * len(ids)
        owners, branches = torch.tensor(parts).T
        continued = (branches[:, None] == branches) | (branches == 0)
        sees = (owners[:, None] == owners) & continued
        hidden = torch.zeros(sees.shape, dtype=self.model.dtype)
        hidden.masked_fill_(~sees.tril(), torch.finfo(self.model.dtype).min)
        return {
            "position_ids": torch.tensor([positions], device=self.device),
            "attention_mask": hidden[None, None].to(self.device),
        }

    @torch.inference_mode()
    def _process(self, ids: torch.Tensor) -> None:
        seen = self.cache.get_seq_length() if self.cache is not None else 0
        if seen + ids.shape[1] > self.context:
            raise LabError(f"the context of {self.context} tokens is full; raise 'context'")
        output = self.model(ids, past_key_values=self.cache, use_cache=True, logits_to_keep=1)
        self.cache = output.past_key_values
        self._logits = output.logits[0, -1]
        self._wait()

    def _wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()
        elif self.device == "mps":
            torch.mps.synchronize()

    def _read_every_page(self) -> None:
        """Touch every weight, since safetensors are mapped and a load must read them all."""
        with torch.inference_mode():
            for tensor in chain.from_iterable(map(parts_of, self.model.parameters())):
                if tensor.device.type == "cpu":  # in its order in memory, so without a copy
                    order = sorted(range(tensor.dim()), key=tensor.stride, reverse=True)
                    values = tensor.permute(order).reshape(-1)
                    values[:: 4096 // tensor.element_size()].sum()

    def _tokenizer(self) -> Any:
        if self.tokenizer is None:
            self.tokenizer = AutoTokenizer.from_pretrained(
                self.weights, local_files_only=True, trust_remote_code=False
            )
        return self.tokenizer


RUNTIME = Transformers
