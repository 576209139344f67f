"""Quantizing: every type and mixture that the config allows is made, of the size that was said."""

import re
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader

from minillm_lab.experiment.mixtures import TENSOR_TYPES
from minillm_lab.experiment.sources import QUANTIZATION_TYPES
from minillm_lab.header import read_gguf
from minillm_lab.jobs.errors import LabError
from minillm_lab.models import imatrix
from minillm_lab.models.facts import facts_of
from minillm_lab.models.imatrix import collect, write_imatrix
from minillm_lab.models.quantize import Quantizer, quantize
from minillm_lab.recipe import told
from minillm_lab.runtimes import Options
from minillm_lab.runtimes.llama_cpp import LlamaCpp
from tiny_model import split_gguf, write_tiny_gguf, write_tiny_mamba


@pytest.fixture(scope="module")
def matrix(tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("matrix") / "imatrix.gguf"
    text = (Path(imatrix.__file__).parent / "calibration.txt").read_text()
    write_imatrix(collect(tiny_gguf, text, "a text", 2), path)
    return path


@pytest.mark.parametrize("type_", QUANTIZATION_TYPES)
def test_every_type_of_the_config_is_made_and_computes(
    type_: str, tiny_gguf: Path, matrix: Path, tmp_path: Path
) -> None:
    quantize(tiny_gguf, type_, tmp_path / "out.gguf", matrix)
    facts = facts_of(tmp_path / "out.gguf")
    plain = re.sub("_(XS|XXS|[SML])$", "", type_)
    assert facts["type"] == type_ and any(t.startswith(plain) for t in facts["tensor_types"])
    assert computes(tmp_path / "out.gguf")


@pytest.mark.parametrize("type_", TENSOR_TYPES)
def test_every_type_of_a_tensor_is_made_and_computes(
    type_: str, tiny_gguf: Path, matrix: Path, tmp_path: Path
) -> None:
    quantize(tiny_gguf, "Q8_0", tmp_path / "out.gguf", matrix, {"ffn_down": type_})
    types = types_in(tmp_path / "out.gguf")
    assert {t for name, t in types.items() if "ffn_down" in name} == {type_}
    assert {t for name, t in types.items() if "ffn_up" in name} == {"Q8_0"}
    assert computes(tmp_path / "out.gguf")


def test_the_first_pattern_found_in_a_name_decides(tiny_gguf: Path, tmp_path: Path) -> None:
    mixture = {"token_embd": "Q8_0", "blk.(0).*": "Q5_1", "ffn_(up|down)": "F16", "ffn": "Q3_K"}
    quantize(tiny_gguf, "Q4_K_M", tmp_path / "stock.gguf")
    quantize(tiny_gguf, "Q4_K_M", tmp_path / "out.gguf", tensors=mixture)
    types, stock = types_in(tmp_path / "out.gguf"), types_in(tmp_path / "stock.gguf")
    assert types["token_embd.weight"] == "Q8_0"
    assert types["blk.0.ffn_down.weight"] == types["blk.0.attn_q.weight"] == "Q5_1"
    assert types["blk.1.ffn_down.weight"] == types["blk.1.ffn_up.weight"] == "F16"
    assert types["blk.1.ffn_gate.weight"] == "Q3_K"
    others = {n for n, t in types.items() if t == stock[n]}
    assert others >= {"blk.0.attn_norm.weight", "blk.1.attn_k.weight", "output_norm.weight"}


def test_an_output_of_its_own_takes_its_own_type(tmp_path: Path) -> None:
    write_tiny_gguf(tmp_path / "in.gguf", output=1.0)
    mixture = {"^output": "Q5_0", "token_embd": "Q4_0"}
    quantize(tmp_path / "in.gguf", "Q6_K", tmp_path / "out.gguf", tensors=mixture)
    types = types_in(tmp_path / "out.gguf")
    assert (types["output.weight"], types["token_embd.weight"]) == ("Q5_0", "Q4_0")


@pytest.mark.parametrize("by_matrix", [False, True])
@pytest.mark.parametrize("type_", ["F32", "F16", "Q8_0", "Q4_K_M", "IQ4_XS", "Q3_K_S"])
@pytest.mark.parametrize("mixture", [{}, {"ffn": "Q6_K", "attn_v": "Q5_1"}])
def test_the_size_is_said_before_to_the_byte(
    mixture: dict[str, str],
    type_: str,
    by_matrix: bool,
    tiny_gguf: Path,
    matrix: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if mixture and type_ in ("F32", "F16"):
        mixture = {}  # the config refuses it
    out = tmp_path / "out.gguf"
    quantize(tiny_gguf, type_, out, matrix if by_matrix else None, mixture)
    assert said_bytes(capsys) == out.stat().st_size


def test_the_size_of_other_sources_is_said_to_the_byte(
    tmp_path: Path, tiny_gguf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tiny_mamba(tmp_path / "mamba.gguf")
    write_tiny_gguf(tmp_path / "experts.gguf", experts=4, used=2, output=1.0)
    write_tiny_gguf(tmp_path / "narrow.gguf", width=96, feed=160, begins=True)  # rows fall back
    split_gguf(tiny_gguf, tmp_path / "parts", "tiny", general__name="a name")
    quantize(tiny_gguf, "Q4_0", tmp_path / "quantized.gguf")
    capsys.readouterr()
    for source in ("mamba.gguf", "experts.gguf", "narrow.gguf", "parts", "quantized.gguf"):
        out = tmp_path / f"{source}.out.gguf"
        quantize(tmp_path / source, "Q5_K_M", out)
        assert said_bytes(capsys) == out.stat().st_size, source


@pytest.mark.parametrize(
    ("mixture", "said"),
    [
        ({"ffn_dwn": "Q8_0"}, r"'ffn_dwn' matches no tensor of the model; it has attn_k, .*ffn_do"),
        ({"FFN_DOWN": "Q8_0"}, "'FFN_DOWN' matches no tensor"),
        ({"ffn": "Q8_0", "ffn_up": "Q6_K"}, "earlier patterns match all that 'ffn_up' does"),
        (
            {"attn_norm": "Q8_0"},
            r"no tensor that 'attn_norm' matches, as blk\.0\.attn_norm\.weight",
        ),
        ({"token_embd": "IQ2_XXS"}, r"IQ2_XXS of token_embd\.weight, .*write Q2_K for it"),
        ({"(?=ffn_up)(?i:F)": "Q8_0"}, "cannot make Q4_K_M of it: .*regular expression"),
        ({"ffn_up.weight\\Z": "Q8_0"}, "reads a pattern otherwise than Python"),
        ({"ffn_up": "Q8_0", "weight[^]]*$": "Q6_K"}, "otherwise than Python|regular expression"),
    ],
)
@pytest.mark.parametrize("by_matrix", [False, True])
def test_a_mixture_that_cannot_be_is_one_line_and_leaves_nothing(
    by_matrix: bool,
    mixture: dict[str, str],
    said: str,
    tiny_gguf: Path,
    matrix: Path,
    tmp_path: Path,
) -> None:
    with pytest.raises(LabError, match=said) as error:
        quantize(tiny_gguf, "Q4_K_M", tmp_path / "o.gguf", matrix if by_matrix else None, mixture)
    assert "\n" not in str(error.value)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("base", ["Q8_0", "Q6_K"])
def test_a_type_that_rows_do_not_divide_into_is_refused_with_the_one_to_write(
    base: str, tmp_path: Path
) -> None:
    write_tiny_gguf(tmp_path / "in.gguf", width=96)
    with pytest.raises(LabError, match=r"'ffn_up' asks for Q6_K of blk\.0\.ffn_up\.weight, whose"
                       " rows of 96 .* would take Q8_0; write Q8_0"):  # fmt: skip
        quantize(tmp_path / "in.gguf", base, tmp_path / "out.gguf", tensors={"ffn_up": "Q6_K"})
    assert [f.name for f in tmp_path.iterdir()] == ["in.gguf"]


def test_a_mixture_that_needs_a_matrix_says_so(tiny_gguf: Path, tmp_path: Path) -> None:
    with pytest.raises(LabError, match="only with an importance matrix; take imatrix: own"):
        quantize(tiny_gguf, "Q8_0", tmp_path / "out.gguf", tensors={"ffn_down": "IQ3_XXS"})
    assert not [*tmp_path.iterdir()]


def test_what_a_recipe_says_of_its_file_is_not_said_of_one_made_from_it(
    tiny_gguf: Path, tmp_path: Path
) -> None:
    first, second = tmp_path / "first.gguf", tmp_path / "second.gguf"
    lines = told({"ffn": "Q8_0", "attn": "Q5_0"}, "1.0")
    Quantizer(tiny_gguf, "Q8_0", tensors={"ffn": "Q8_0", "attn": "Q5_0"}, told=lines).write(first)
    quantizer = Quantizer(first, "Q4_0")
    quantizer.write(second)
    said = [
        {key: GGUFReader(f).get_field(key).contents() for key in lines} for f in (first, second)
    ]
    assert said == [lines, dict.fromkeys(lines, "")]
    assert second.stat().st_size == quantizer.size(quantizer.types())


def test_a_broken_source_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + b"\xff" * 100)
    with pytest.raises(LabError, match=r"broken\.gguf: not a GGUF file that can be used") as error:
        quantize(tmp_path / "broken.gguf", "Q4_K_M", tmp_path / "out.gguf")
    assert "\n" not in str(error.value)
    assert [f.name for f in tmp_path.iterdir()] == ["broken.gguf"]


def types_in(path: Path) -> dict[str, str]:
    return {tensor.name: tensor.type for tensor in read_gguf(path).tensors}


def computes(path: Path) -> bool:
    runtime = LlamaCpp()
    runtime.load(path, Options(threads=1, context=64))
    runtime.prefill([1, 2, 3])
    finite = bool(np.isfinite(runtime.logits()).all())
    runtime.unload()
    return finite


def said_bytes(capsys: pytest.CaptureFixture[str]) -> int:
    """The size in the message ``quantizing to Q4_K_M: <path>, 105,454,432 bytes``."""
    found = re.fullmatch(r"quantizing to \w+: .*\.gguf, ([\d,]+) bytes\n", capsys.readouterr().err)
    assert found
    return int(found[1].replace(",", ""))
