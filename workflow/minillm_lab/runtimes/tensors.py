"""PyTorch's tensors: products of halves on a CPU, and what libraries quantized."""

import logging
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


def quiet() -> None:
    """Keep libraries from saying at each start what they do without."""
    for library in ("torchao", "bitsandbytes", "torch.utils._pytree"):
        logging.getLogger(library).setLevel(logging.ERROR)


class HalfProducts(TorchFunctionMode):
    """Within this mode, float16 linear layers are faster on a CPU without float16 arithmetic.

    There PyTorch takes the exact products of halves, sums them in float32 and rounds the sum to
    float16, by a plain loop. A float32 matrix product of the same halves is the same arithmetic in
    another order. Only ``logits_of`` uses it; PyTorch is timed without it.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> torch.Tensor:
        if func is torch.nn.functional.linear and not kwargs and args[0].dtype == torch.float16:
            x, weight, *bias = args
            biases = [b if b is None else b.float() for b in bias]
            return func(x.float(), weight.float(), *biases).half()
        result: torch.Tensor = func(*args, **(kwargs or {}))
        return result


def parts_of(tensor: torch.Tensor) -> list[torch.Tensor]:
    """The plain tensors that a tensor consists of: quantized values and scales, or itself."""
    if not hasattr(tensor, "__tensor_flatten__"):
        return [tensor]
    names, _ = tensor.__tensor_flatten__()
    return [part for name in names for part in parts_of(getattr(tensor, name))]


def library_in(config: Any) -> str | None:
    """The library of the lab's own forms that quantized a model; None for any other, or none."""
    how = getattr(config, "quantization_config", None) or {}
    method = how.get("quant_method") if isinstance(how, dict) else None
    return method if method in ("bitsandbytes", "torchao") else None
