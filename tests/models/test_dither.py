"""Dither: unpacked weights leave the grid that they were shipped on, and stay within their step."""

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader
from gguf.quants import dequantize

from conftest import SMOLLM2, Lab, tiny_config
from minillm_lab.experiment.config import load_experiment
from minillm_lab.jobs.errors import LabError
from minillm_lab.models.convert import unpack
from minillm_lab.models.dither import LOWEST_BITS
from minillm_lab.models.quantize import quantize

MADE_AS = {t: t for t in ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q6_K")}
MADE_AS |= {"Q3_K": "Q3_K_S", "Q4_K": "Q4_K_S", "Q5_K": "Q5_K_S"}  # types of tensors: of a file


def weights(path: Path) -> dict[str, np.ndarray]:
    """Every tensor of a GGUF file as float32, by the gguf package's own reading of it."""
    tensors = GGUFReader(path).tensors
    return {t.name: dequantize(t.data, t.tensor_type).astype(np.float32) for t in tensors}


def scales_of(blocks: np.ndarray, type_: str) -> np.ndarray:
    """The steps by the formats' definition: d of a legacy block, d x scale of a K-quant's part."""
    half: Callable[[np.ndarray], np.ndarray] = lambda b: b.copy().view(np.float16).astype(float)  # noqa: E731
    if type_ in ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"):
        return np.repeat(half(blocks[:, :2]), 32, axis=1)
    if type_ == "Q6_K":
        return np.repeat(half(blocks[:, 208:]) * blocks[:, 192:208].view(np.int8), 16, axis=1)
    if type_ == "Q2_K":
        return np.repeat(half(blocks[:, 80:82]) * (blocks[:, :16] & 15), 16, axis=1)
    if type_ == "Q3_K":
        packed = blocks[:, 96:108]
        low = np.concatenate([packed[:, :8] & 15, packed[:, :8] >> 4], axis=1)
        high = np.concatenate([packed[:, 8:] >> shift & 3 for shift in (0, 2, 4, 6)], axis=1)
        scales = (low | high << 4).astype(int) - 32
        return np.repeat(half(blocks[:, 108:]) * scales, 16, axis=1)
    packed = blocks[:, 4:16]  # Q4_K, Q5_K: eight scales of six bits
    first = packed[:, :4] & 63
    second = (packed[:, 8:] & 15) | (packed[:, :4] >> 6 << 4)
    scales = np.concatenate([first, second], axis=1)
    return np.repeat(half(blocks[:, :2]) * scales, 32, axis=1)


@pytest.mark.parametrize("type_", LOWEST_BITS)
def test_every_weight_moves_evenly_within_its_share_of_a_step(
    type_: str, tiny_gguf: Path, tmp_path: Path
) -> None:
    source = tmp_path / "source.gguf"
    quantize(tiny_gguf, MADE_AS[type_], source)
    unpack(source, tmp_path / "moved.gguf", 0.5)
    unpack(source, tmp_path / "plain.gguf")
    shipped = {t.name: t for t in GGUFReader(source).tensors}
    moved, plain = weights(tmp_path / "moved.gguf"), weights(tmp_path / "plain.gguf")
    seen = []
    for name, tensor in shipped.items():
        if tensor.tensor_type.name != type_:
            continue
        exact = dequantize(tensor.data, tensor.tensor_type)
        blocks = tensor.data.reshape(exact.size // (256 if type_[-1] == "K" else 32), -1)
        step = np.abs(scales_of(blocks, type_)).reshape(exact.shape)
        rounding = (np.abs(exact) + step) * 2.0**-10 + 1e-7  # of float16
        distance = moved[name] - exact
        assert (np.abs(distance) <= 0.25 * step + rounding).all()
        steady = (step > 0) & (rounding < 0.02 * step)
        seen.append((distance[steady] / step[steady]).ravel())
    share = np.concatenate(seen)
    assert share.size > 10_000
    assert abs(share.mean()) < 0.01
    assert share.std() == pytest.approx(0.5 / np.sqrt(12), rel=0.03)  # a uniform distribution's
    unmoved = {n for n, t in shipped.items() if t.tensor_type.name == "F32"}
    assert unmoved and all((moved[n] == plain[n]).all() for n in unmoved)


def test_the_same_file_and_share_give_the_same_bytes(tiny_gguf: Path, tmp_path: Path) -> None:
    quantize(tiny_gguf, "Q4_1", tmp_path / "source.gguf")
    for name in "ab":
        unpack(tmp_path / "source.gguf", tmp_path / name, 0.5)
    unpack(tmp_path / "source.gguf", tmp_path / "plain", 0)
    moved, plain = (tmp_path / "a").read_bytes(), (tmp_path / "plain").read_bytes()
    assert moved == (tmp_path / "b").read_bytes() != plain
    fields = [
        {k: f.contents() for k, f in GGUFReader(tmp_path / name).fields.items()}
        for name in ("a", "plain")
    ]
    assert fields[0] == fields[1] and len(moved) == len(plain)  # nothing but weights differs


@pytest.mark.parametrize("type_, said", [("IQ4_NL", "of IQ4_NL are not"), ("F16", "not quantized")])
def test_what_has_no_step_is_refused_in_one_line(
    type_: str, said: str, tiny_gguf: Path, tmp_path: Path
) -> None:
    quantize(tiny_gguf, type_, tmp_path / "source.gguf")
    with pytest.raises(LabError, match=said) as error:
        unpack(tmp_path / "source.gguf", tmp_path / "out.gguf", 0.5)
    assert "\n" not in str(error.value) and "leave 'dither' out" in str(error.value)
    assert not (tmp_path / "out.gguf").exists()


def test_unquantized_weights_are_never_moved() -> None:
    config = copy.deepcopy(SMOLLM2)
    config["models"]["mine"] = {"path": "mine.F16.gguf", "dither": 0.5}
    with pytest.raises(LabError, match=r"models\.mine\.dither: the source ships unquantized"):
        load_experiment(config)
    config["models"]["mine"]["dither"] = 1.5
    with pytest.raises(LabError, match=r"models\.mine\.dither: .*less than or equal to 1"):
        load_experiment(config)


def test_dither_changes_the_unpacked_weights_alone_and_the_page_says_so(
    tiny_gguf: Path, tmp_path: Path
) -> None:
    lab = Lab(tmp_path / "lab", tiny_config(Path("tiny.Q4_1.gguf"), rounds=1, trials=1))
    quantize(tiny_gguf, "Q4_1", lab.path("tiny.Q4_1.gguf"))
    lab.config["models"]["tiny"]["dither"] = 0.5
    lab.write_config()
    lab.run()
    moved = "each weight was moved at random by up to ± 25 % of its rounding step"
    page = lab.path("RESULTS.md").read_text()
    assert f"tiny is shipped in Q4_1 alone, so its F16 is unpacked from that: {moved}" in page
    assert any(
        "each weight moved at random" in warning
        for warning in lab.json("results/f16.json")["warnings"]
    )
    lab.config["models"]["tiny"]["dither"] = 0.25
    lab.write_config()
    planned = lab.planned()
    assert planned["convert"] == 1 and "fetch_gguf" not in planned
