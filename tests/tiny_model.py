"""A tiny model made on the spot: real file formats, real runtimes, random weights."""

import json
import pickle
import shutil
import struct
from pathlib import Path
from typing import Any

import gguf
import numpy as np

VOCABULARY_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MERGES = ["h e", "l l", "Ġ t", "i n", "he ll"]
PROMPT = {"text": "Why?", "token_ids": [54, 71, 88, 30], "chat_template": False}
PROMPT |= {"tokenizer": "llama.cpp"}


def as_gguf(content: bytes) -> bytes:
    """A whole GGUF file that holds any bytes as one tensor; no runtime can run it."""
    name, int8 = b"content", 24
    header = struct.pack("<4sIQQQ7sI", b"GGUF", 3, 1, 0, len(name), name, 1)
    header += struct.pack("<QIQ", len(content), int8, 0)
    return header + bytes(-len(header) % 32) + content


def as_safetensors(content: bytes) -> bytes:
    """The same as safetensors."""
    about = {"dtype": "U8", "shape": [len(content)], "data_offsets": [0, len(content)]}
    header = json.dumps({"content": about}).encode()
    return struct.pack("<Q", len(header)) + header + content


def plant_code(folder: Path, canary: Path) -> None:
    """Add what would run code where a library lets it: modules, named in the configs; a pickle."""

    class Harm:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return exec, (f"open({str(canary)!r}, 'a').write('pickle ')",)

    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Harm()))
    (folder / "evil.py").write_text(f"open({str(canary)!r}, 'a').write('module ')\n")
    auto: dict[str, object] = {n: f"evil.{n}" for n in ("AutoConfig", "AutoModelForCausalLM")}
    auto["AutoTokenizer"] = ["evil.Tokenizer", "evil.Tokenizer"]
    for file in ("config.json", "tokenizer_config.json"):
        settings = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps(settings | {"auto_map": auto}))


def byte_symbols() -> list[str]:
    """The 256 printable symbols that byte-level BPE writes bytes with, in byte order."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in plain else chr(next(others)) for byte in range(256)]


def split_gguf(source: Path, folder: Path, stem: str, parts: int = 3, **added: str) -> list[Path]:
    """Write a GGUF in parts as llama.cpp's gguf-split does; ``added`` are keys of more text."""
    from gguf.constants import GGUFValueType

    reader = gguf.GGUFReader(source)
    folder.mkdir(parents=True, exist_ok=True)
    most = -(-len(reader.tensors) // parts)
    architecture = str(reader.fields["general.architecture"].contents())
    writer = gguf.GGUFWriter(folder / f"{stem}.gguf", architecture, split_max_tensors=most)
    for field in reader.fields.values():
        if not field.name.startswith("GGUF.") and field.name != "general.architecture":
            kind, *inner = field.types
            value = field.contents()
            writer.add_key_value(field.name, value, kind, inner[-1] if inner else None)
    for key, text in added.items():
        writer.add_key_value(key.replace("__", "."), text, GGUFValueType.STRING)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return sorted(folder.glob(f"{stem}-*-of-*.gguf"))


def write_tiny_mamba(path: Path, *, width: int = 64, layers: int = 2) -> None:
    """Write a Mamba model in F32: a state goes from token to token, and no mask hides one."""
    random = np.random.default_rng(7)
    inner, state, rank, kernel = 2 * width, 16, 4, 4
    tokens = byte_symbols() + [m.replace(" ", "") for m in MERGES]
    tokens += [f"unused{i}" for i in range(300 - len(tokens))]
    writer = gguf.GGUFWriter(path, "mamba")
    writer.add_block_count(layers)
    writer.add_context_length(512)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(0)
    writer.add_head_count(0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_ssm_conv_kernel(kernel)
    writer.add_ssm_inner_size(inner)
    writer.add_ssm_state_size(state)
    writer.add_ssm_time_step_rank(rank)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_merges(MERGES)
    writer.add_eos_token_id(len(tokens) - 1)

    def matrix(name: str, rows: int, columns: int, scale: float = 1.0) -> None:
        values = random.normal(0, scale / np.sqrt(columns), (rows, columns))
        writer.add_tensor(name, values.astype(np.float32))

    def vector(name: str, size: int, fill: float) -> None:
        writer.add_tensor(name, np.full(size, fill, np.float32))

    matrix("token_embd.weight", len(tokens), width, 8.0)
    for i in range(layers):
        vector(f"blk.{i}.attn_norm.weight", width, 1.0)
        matrix(f"blk.{i}.ssm_in.weight", 2 * inner, width)
        matrix(f"blk.{i}.ssm_conv1d.weight", inner, kernel)
        vector(f"blk.{i}.ssm_conv1d.bias", inner, 0.1)
        matrix(f"blk.{i}.ssm_x.weight", rank + 2 * state, inner)
        matrix(f"blk.{i}.ssm_dt.weight", inner, rank)
        vector(f"blk.{i}.ssm_dt.bias", inner, 0.5)
        decay = -np.arange(1, state + 1, dtype=np.float32)
        writer.add_tensor(f"blk.{i}.ssm_a", np.tile(decay, (inner, 1)))
        vector(f"blk.{i}.ssm_d", inner, 1.0)
        matrix(f"blk.{i}.ssm_out.weight", width, inner)
    vector("output_norm.weight", width, 1.0)
    matrix("output.weight", len(tokens), width, 4.0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_byte_level(writer: gguf.GGUFWriter, begins: bool) -> int:
    """A byte-level vocabulary of 300, as Qwen2's; how many it has."""
    tokens = byte_symbols() + [m.replace(" ", "") for m in MERGES]
    tokens += [f"unused{i}" for i in range(300 - len(tokens) - len(VOCABULARY_SPECIAL))]
    types = [gguf.TokenType.NORMAL] * len(tokens)
    tokens += VOCABULARY_SPECIAL
    types += [gguf.TokenType.CONTROL] * len(VOCABULARY_SPECIAL)
    end = tokens.index("<|im_end|>")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(MERGES)
    writer.add_eos_token_id(end)
    writer.add_bos_token_id(tokens.index("<|endoftext|>"))
    writer.add_pad_token_id(tokens.index("<|endoftext|>"))
    writer.add_add_bos_token(begins)
    return len(tokens)


def add_sentencepiece(size: int, writer: gguf.GGUFWriter) -> int:
    """A SentencePiece vocabulary that begins every text, as Gemma's; how many it has."""
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    types = [gguf.TokenType.CONTROL] * 3 + [gguf.TokenType.UNKNOWN] + [gguf.TokenType.BYTE] * 256
    words = ["▁", *map(chr, range(33, 127)), "he", "▁t", "▁the", "in", "ll", "hello", "▁hello"]
    tokens += words + [f"<unused{i}>" for i in range(size - len(tokens) - len(words))]
    types += [gguf.TokenType.NORMAL] * (size - len(types))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_scores([-float(i) for i in range(size)])
    writer.add_eos_token_id(1)
    writer.add_bos_token_id(2)
    writer.add_unk_token_id(3)
    writer.add_pad_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(False)
    return size


def write_tiny_gguf(
    path: Path,
    *,
    width: int = 256,
    layers: int = 2,
    heads: int = 4,
    feed: int = 512,
    template: str | None = TEMPLATE,
    begins: bool = False,
    output: float | None = None,
    sentencepiece: int | None = None,
    experts: int = 0,
    used: int = 0,
) -> None:
    """Write a Qwen2 model in F16; rows of 256 so that K-quants need no fallback.

    With ``experts`` it is of the Llama architecture, and each token uses ``used`` of them.

    With ``begins`` its tokenizer puts <|endoftext|> before a text. With ``output`` the last norm,
    which every logit goes through, is filled with that value. With ``sentencepiece`` the vocabulary
    has that many entries and is like Gemma's, as is the output matrix, which is that of the
    embeddings.
    """
    random = np.random.default_rng(7)
    writer = gguf.GGUFWriter(path, "llama" if experts else "qwen2")
    writer.add_name("tiny")
    if experts:
        writer.add_expert_count(experts)
        writer.add_expert_used_count(used)
    writer.add_block_count(layers)
    writer.add_context_length(512)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(feed)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads // 2)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10000.0)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    if sentencepiece is None:
        tokens = add_byte_level(writer, begins)
    else:
        tokens = add_sentencepiece(sentencepiece, writer)
    if template is not None:
        writer.add_chat_template(template)

    def matrix(name: str, rows: int, columns: int, scale: float = 1.0) -> None:
        values = random.normal(0, scale / np.sqrt(columns), (rows, columns))
        writer.add_tensor(name, values.astype(np.float16))

    def vector(name: str, size: int, fill: float) -> None:
        writer.add_tensor(name, np.full(size, fill, np.float32))

    def feeding(name: str, rows: int, columns: int) -> None:
        if not experts:
            return matrix(f"{name}.weight", rows, columns)
        values = random.normal(0, 1 / np.sqrt(columns), (experts, rows, columns))
        writer.add_tensor(f"{name}_exps.weight", values.astype(np.float16))

    key = width // 2
    matrix("token_embd.weight", tokens, width, 16.0)
    for i in range(layers):
        vector(f"blk.{i}.attn_norm.weight", width, 1.0)
        for name, rows in {"attn_q": width, "attn_k": key, "attn_v": key}.items():
            matrix(f"blk.{i}.{name}.weight", rows, width)
            vector(f"blk.{i}.{name}.bias", rows, 0.01)
        matrix(f"blk.{i}.attn_output.weight", width, width)
        vector(f"blk.{i}.ffn_norm.weight", width, 1.0)
        if experts:
            matrix(f"blk.{i}.ffn_gate_inp.weight", experts, width)
        feeding(f"blk.{i}.ffn_gate", feed, width)
        feeding(f"blk.{i}.ffn_up", feed, width)
        feeding(f"blk.{i}.ffn_down", width, feed)
    vector("output_norm.weight", width, 1.0 if output is None else output)
    if sentencepiece is None:
        matrix("output.weight", tokens, width, 8.0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def random_model(architecture: str, like: Path, place: Path, **more: Any) -> Path:
    """A folder of safetensors in ``place``: Transformers' architecture with random weights.

    Rows have 64 weights. The tokenizer is that of another folder, ``like``.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {"vocab_size": 300, "hidden_size": 64, "intermediate_size": 96}
    sizes |= {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
    folder = place / "source"
    shutil.copytree(like, folder)
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(architecture, **sizes, **more))
    for values in model.parameters():
        torch.nn.init.normal_(values, std=0.3)  # so that attention looks at places
    model.save_pretrained(folder)
    return folder
