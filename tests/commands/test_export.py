"""Exports: a model card that cannot be broken out of, and rows that llama-bench's readers take."""

import json
from pathlib import Path
from statistics import fmean, stdev

import pytest

from builders import around, compared, made_up
from minillm_lab.commands.export import model_card, text_of
from minillm_lab.comparison.compare import compare
from minillm_lab.comparison.published import MOST, read_published
from minillm_lab.jobs.errors import LabError
from minillm_lab.records import QualityMetric
from minillm_lab.result import Metric, ModelFile, Result

# The fields of `llama-bench -o jsonl` (llama.cpp 0c1e570).
LLAMA_BENCH = (
    "build_commit build_number cpu_info gpu_info backends model_filename model_type model_size"
    " model_n_params n_batch n_ubatch n_threads cpu_mask cpu_strict poll type_k type_v n_gpu_layers"
    " n_cpu_moe split_mode main_gpu no_kv_offload flash_attn devices tensor_split"
    " tensor_buft_overrides load_mode lazy_mode embeddings no_op_offload no_host repack fit_target"
    " fit_min_ctx n_prompt n_gen n_depth test_time avg_ns stddev_ns avg_ts stddev_ts samples_ns"
    " samples_ts"
).split()
HOSTILE = "<script>a|b`c\u202e\x1b[31m"


def exported(format_: str, *results: Result) -> str:
    comparison = compare({r.variant: r for r in results}, results[0].variant, "snakemake | `x`")
    return text_of(comparison, format_, "aaaaaaaaaaaa")


def q8_0() -> Result:
    result = made_up("q8_0", decode=around(100))
    for what, speed in (("prefill", 900.0), ("decode", 80.0)):
        metric = Metric(value=speed, unit="t/s", ci95=None, n=3, samples=[[speed]] * 3)
        result.metrics[f"{what}_tokens_per_second_at_512"] = metric
    result.runtime["settings"] |= {
        "batch": 2048, "micro_batch": 512, "kv_cache": "F16", "flash_attention": "enabled",
        "gpu_layers": 0, "load_mode": "mmap",
    }  # fmt: skip
    return result


def test_rows_have_llama_benchs_fields_and_figures() -> None:
    fp16 = made_up("fp16", runtime="transformers")
    rows = [json.loads(line) for line in exported("llama-bench", fp16, q8_0()).splitlines()]
    assert all(set(row) == {*LLAMA_BENCH, "use_mmap"} for row in rows)
    tests = {(r["n_prompt"], r["n_gen"], r["n_depth"]): r for r in rows}
    assert set(tests) == {(10, 0, 0), (0, 79, 10), (512, 0, 0), (0, 16, 512)}
    decode = tests[0, 79, 10]
    speeds = [speed for round_ in around(100) for speed in round_]
    assert decode["samples_ts"] == speeds
    assert decode["avg_ts"] == fmean(speeds) and decode["stddev_ts"] == stdev(speeds)
    assert decode["samples_ns"][0] == round(1e9 * 79 / speeds[0])
    assert decode["model_size"] == 10**8 and decode["model_n_params"] == 10**8
    assert (decode["type_k"], decode["flash_attn"], decode["load_mode"]) == ("f16", 1, "mmap")
    assert decode["poll"] is None  # what is not known is not made up


def test_without_llama_cpp_there_are_no_rows() -> None:
    with pytest.raises(LabError, match=r"no variant ran in llama\.cpp"):
        exported("llama-bench", made_up("fp16", runtime="transformers"))


def test_the_model_card_holds_the_files_the_figures_and_the_command() -> None:
    result = q8_0()
    result.model.files[0].path = "models/m/Q8_0.gguf"
    card = exported("model-card", result)
    header, _, row = (line for line in card.splitlines() if line.startswith("|"))
    cells = dict(
        zip(*([c.strip() for c in r.split("|")[1:-1]] for r in (header, row)), strict=True)
    )
    assert cells["File"] == "`Q8_0.gguf, llama.cpp`"
    assert cells["Size, MB"] == "100" and cells["Bits per weight"] == "8.00"
    assert cells["Decode ↑, t/s"].startswith("100") and "(9" in cells["Decode ↑, t/s"]
    assert cells["KL divergence ↓, nats"] == "–"  # not measured
    assert r"Command: snakemake \| \`x\`" in card and "A CPU, 2 cores" in card


def test_the_model_card_of_two_models_says_whose_each_file_is() -> None:
    small, large = made_up("a"), made_up("b")
    small.model.name, large.model.name = "small", "large"
    found = compared(small, large)
    card = model_card(found.results, found)
    assert "| `small: m, llama.cpp`" in card and "| `large: m, llama.cpp`" in card


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("model.safetensors", "are taken against the unquantized weights."),
        ("tiny-F16.gguf", "are taken against the unquantized weights."),
        ("tiny-Q8_0.gguf", "against `tiny-Q8_0.gguf`, whose weights are quantized themselves."),
        ("a.UD-Q4_K_XL-00001-of-00003.gguf", "whose weights are quantized themselves."),
    ],
)
def test_the_model_card_says_what_losses_were_taken_against(file: str, said: str) -> None:
    result = q8_0()
    result.protocol["quality"] = {"reference": {"weights": {file: "1" * 64}}}
    assert said in exported("model-card", result)


def test_the_model_card_tells_two_caches_of_one_file_apart() -> None:
    small = made_up("small", quantization="F16")
    small.runtime["settings"]["kv_cache"] = "q8_0"
    card = exported("model-card", made_up("plain", quantization="F16"), small)
    assert "`m, llama.cpp`" in card and "`m, llama.cpp, kv_cache q8_0`" in card


def test_the_model_card_tells_two_settings_of_one_converted_model_apart() -> None:
    parts = [ModelFile(path=f"models/m/openvino-int8/{n}", bytes=9, sha256="1" * 64) for n in "ab"]
    plain, rounded = (made_up(n, quantization="openvino-int8") for n in ("plain", "rounded"))
    for result in (plain, rounded):
        result.runtime["name"] = "openvino"
        result.model = result.model.model_copy(update={"files": parts, "format": "openvino"})
    rounded.runtime["settings"] |= {"chosen": ["kv_cache"], "kv_cache": "u8"}
    card = exported("model-card", plain, rounded)
    assert "`openvino-int8, openvino`" in card
    assert "`openvino-int8, openvino, kv_cache u8`" in card


def test_the_model_card_says_what_the_results_warn_of() -> None:
    result = q8_0()
    result.model.files[0].path = "models/m/Q8_0.gguf"
    unpacked = "the source ships only quantized weights; F16 unpacked from them counts"
    flaw = (
        "the answer means nothing: it is one token, repeated; no figure of this variant is ranked"
    )
    result.warnings = [flaw, unpacked, "load: /home/me/m.gguf <b>"]
    card = exported("model-card", made_up("f16", quantization="F16"), result).splitlines()
    for text in (flaw, unpacked, r"load: m.gguf \<b\>"):
        assert f"- Warning, `Q8_0.gguf, llama.cpp`: {text}" in card


def test_hostile_names_stay_text_in_the_model_card() -> None:
    result = q8_0()
    result.model.name = result.machine["cpu"] = HOSTILE
    result.model.files[0].path = f"models/m/{HOSTILE}.gguf"
    result.quality = {"kld_mean": QualityMetric(value=0.1, unit="nat", ci95=None, n=1)}
    reference = {"runtime": {"name": "transformers", "settings": {}}}
    result.protocol["quality"] = {"reference": reference, "chunks": 1, "context": 512}
    card = exported("model-card", result)
    assert "\x1b" not in card and "\u202e" not in card and "<script>" not in card
    table = [line.replace(r"\|", "") for line in card.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in table}) == 1


def test_more_than_a_hundred_variants_are_published_and_read_again(tmp_path: Path) -> None:
    results = [made_up(f"v{i}", decode=around(100)) for i in range(101)]
    comparison = compare({r.variant: r for r in results}, "v0", "snakemake")
    file = tmp_path / "published.json"
    file.write_text(text_of(comparison, "results"))
    assert len(read_published(file).variants) == 101


def test_a_variant_of_much_of_everything_is_published_and_read_again(tmp_path: Path) -> None:
    """Shards, depths and chunks beyond the common, and a perplexity that a broken model has."""
    large = q8_0()
    large.model.files = [
        large.model.files[0].model_copy(update={"path": f"{i}.gguf"}) for i in range(120)
    ]
    for depth in range(100, 130):
        for speed in ("prefill", "decode"):
            key = f"{speed}_tokens_per_second"
            large.metrics[f"{key}_at_{depth}"] = large.metrics[key]
    large.quality = {"perplexity_ratio": QualityMetric(value=1e200, unit="1", ci95=None, n=9)}
    large.quality_by_chunk = {"kld_mean": [0.5] * 11_000}
    path = tmp_path / "published.json"
    path.write_text(exported("results", large), encoding="utf-8")
    (variant,) = read_published(path).variants.values()
    assert len(variant.sha256) == 120 and len(variant.quality_by_chunk["kld_mean"]) == 11_000
    assert variant.quality == {}
    assert "decode_tokens_per_second_at_129" in variant.metrics


def test_what_no_file_may_hold_is_one_line() -> None:
    large = q8_0()
    large.machine["os"] = "x" * 300
    with pytest.raises(LabError, match=f"^{large.variant}: cannot be published: os: ") as caught:
        exported("results", large)
    assert "\n" not in str(caught.value)


def test_more_variants_than_a_file_may_hold_are_one_line() -> None:
    result = made_up("v")
    comparison = compare({"v": result}, "v", "snakemake")
    comparison.results |= {f"v{i}": result for i in range(MOST)}
    with pytest.raises(LabError, match="5001 variants are too many for one file, which holds 5000"):
        text_of(comparison, "results")
