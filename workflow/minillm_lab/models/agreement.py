"""Whether a converted model computes what Transformers computes with the same weights."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, AutoTokenizer

TEXT = Path(__file__).with_name("calibration.txt")
CHARACTERS, TOKENS = 400, 48

Logits = Callable[[list[int]], NDArray[np.float32]]


def check_agreement(safetensors: Path, logits: Logits, dtype: str, most: float) -> None:
    """Raise ValueError where a model's logits are not about those of Transformers.

    ``logits``: those of all tokens that it is given, of shape (tokens, vocabulary). ``dtype``: what
    Transformers computes in. ``most``: the mean KL divergence, in nats, that rounding may cause.
    """
    tokenizer = AutoTokenizer.from_pretrained(
        safetensors, local_files_only=True, trust_remote_code=False
    )
    ids = tokenizer(TEXT.read_text("utf-8")[:CHARACTERS])["input_ids"][:TOKENS]
    found = torch.from_numpy(np.array(logits(ids)))
    model = AutoModelForCausalLM.from_pretrained(
        safetensors,
        dtype=dtype,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
    ).eval()
    with torch.inference_mode():
        expected = model(torch.tensor([ids]), use_cache=False).logits[0].float()
    both = min(found.shape[1], expected.shape[1])  # a vocabulary may be filled up
    p, q = (rows[:, :both].log_softmax(1) for rows in (expected, found))
    divergence = float((p.exp() * (p - q)).sum(1).mean())
    if not divergence < most:
        raise ValueError(
            f"it does not compute what Transformers does: {divergence:.2g} nats from it"
        )
