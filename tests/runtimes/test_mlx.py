"""MLX computes what Transformers does, on its CPU build; its speed is a Mac's business."""

import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from minillm_lab.jobs.errors import LabError
from minillm_lab.models.facts import facts_of
from minillm_lab.models.mlx_folder import write_folder
from minillm_lab.runtimes import Passage, Runtime, open_runtime, resolved
from tiny_model import random_model

PLAIN = {"rope_type": "default", "rope_theta": 500.0}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
POSITIONS = {  # architectures, and what their configs say of positions
    "llama": {"rope_parameters": PLAIN | LLAMA3},
    "phi": {"rope_parameters": PLAIN | {"partial_rotary_factor": 0.25}},
    "gemma3_text": {
        "rope_parameters": {
            "full_attention": PLAIN,
            "sliding_attention": PLAIN | {"rope_theta": 50.0},
        },
        "layer_types": ["sliding_attention", "full_attention"],
        "sliding_window": 8,
        "sliding_window_pattern": 2,
        "head_dim": 32,
    },
}
IDS = [54, 71, 88, 30, 12, 7, 99, 140, 3, 41, 68, 205, 17, 33, 90, 2]


@pytest.fixture(scope="module")
def source(tiny_safetensors: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with a base of positions that no runtime takes by itself."""
    folder = tmp_path_factory.mktemp("mlx") / "source"
    shutil.copytree(tiny_safetensors, folder)
    config = json.loads((folder / "config.json").read_text())
    config["rope_parameters"]["rope_theta"] = 500.0
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def opened(name: str, weights: Path, **more: object) -> Runtime:
    settings = {"runtime": name, "dtype": "float32", "context": 64, "threads": 1} | more
    options, runtime = resolved(settings), open_runtime(name)
    runtime.prepare(weights, options)
    runtime.load(weights, options)
    return runtime


@pytest.fixture(scope="module")
def both(source: Path) -> tuple[Runtime, Runtime]:
    """The unquantized model in Transformers and in MLX."""
    folder = source.parent / "mlx-float32"
    write_folder(source, folder.name, folder)
    return opened("transformers", source), opened("mlx", folder)


def test_unquantized_it_computes_what_transformers_computes(both: tuple[Runtime, Runtime]) -> None:
    passage = Passage(IDS, 2, [[5, 6], [], [7]])
    reference, logits = (runtime.logits_of([passage]).copy() for runtime in both)
    assert reference.shape == logits.shape == (len(IDS) - 2 + 3, 300)
    np.testing.assert_allclose(logits, reference, atol=1e-3)
    told, found = (runtime.replies([IDS], 16) for runtime in both)
    assert told == found


@pytest.mark.parametrize("architecture", POSITIONS)
def test_positions_of_other_models_are_those_of_transformers(
    architecture: str, tiny_safetensors: Path, tmp_path: Path
) -> None:
    folder = random_model(architecture, tiny_safetensors, tmp_path, **POSITIONS[architecture])
    write_folder(folder, "mlx-float32", tmp_path / "mlx-float32")
    both = opened("transformers", folder), opened("mlx", tmp_path / "mlx-float32")
    reference, logits = (runtime.logits_of([Passage(IDS, 0)]).copy() for runtime in both)
    np.testing.assert_allclose(logits, reference, atol=1e-3 * np.abs(reference).max())


def test_a_chunk_a_stream_and_single_tokens_give_the_same(both: tuple[Runtime, Runtime]) -> None:
    _, runtime = both
    whole = runtime.logits_of([Passage(IDS, 0)]).copy()
    streamed = np.concatenate([rows.copy() for rows in runtime.stream(Passage(IDS, 3))])
    np.testing.assert_allclose(streamed, whole[3:], atol=1e-3)
    runtime.clear()
    runtime.prefill(IDS[:4])
    single = [runtime.logits().copy()]
    for token in IDS[4:]:
        runtime.decode(token)
        single.append(runtime.logits().copy())
    np.testing.assert_allclose(single, whole[3:], atol=1e-3)


def test_it_keeps_to_one_thread(both: tuple[Runtime, Runtime]) -> None:
    _, runtime = both
    runtime.clear()
    runtime.prefill(IDS)
    start, cpu = time.perf_counter(), time.process_time()
    for _ in range(40):
        runtime.decode(5)
    assert time.process_time() - cpu < 1.3 * (time.perf_counter() - start) + 0.1


def test_a_full_context_and_an_unknown_model_are_one_line(source: Path, tmp_path: Path) -> None:
    write_folder(source, "mlx-b4-g32-float32", tmp_path / "mlx-b4-g32-float32")
    runtime = opened("mlx", tmp_path / "mlx-b4-g32-float32", context=16)
    runtime.prefill(IDS)
    with pytest.raises(LabError, match="the context of 16 tokens is full"):
        runtime.decode(5)
    config = json.loads((source / "config.json").read_text()) | {"model_type": "nonesuch"}
    shutil.copytree(source, tmp_path / "other")
    (tmp_path / "other/config.json").write_text(json.dumps(config))
    with pytest.raises(LabError, match=r"mlx-float16 cannot be made: .*nonesuch"):
        write_folder(tmp_path / "other", "mlx-float16", tmp_path / "mlx-float16")
    assert not (tmp_path / "mlx-float16").exists()


def test_an_output_of_its_own_is_kept_whatever_mlx_lm_takes_for_granted(
    tiny_safetensors: Path, tmp_path: Path
) -> None:
    folder = random_model("llama", tiny_safetensors, tmp_path, tie_word_embeddings=False)
    config = json.loads((folder / "config.json").read_text())
    del config["tie_word_embeddings"]  # as on the hub, where false goes without saying
    (folder / "config.json").write_text(json.dumps(config))
    write_folder(folder, "mlx-float32", tmp_path / "mlx-float32")
    both = opened("transformers", folder), opened("mlx", tmp_path / "mlx-float32")
    reference, logits = (runtime.logits_of([Passage(IDS, 0)]).copy() for runtime in both)
    np.testing.assert_allclose(logits, reference, atol=1e-3 * np.abs(reference).max())


def test_a_window_that_mlx_lm_does_not_keep_to_bounds_the_context(
    tiny_safetensors: Path, tmp_path: Path
) -> None:
    folder = random_model("mistral", tiny_safetensors, tmp_path, sliding_window=50)
    write_folder(folder, "mlx-float32", tmp_path / "mlx-float32")
    opened("mlx", tmp_path / "mlx-float32", context=50)
    with pytest.raises(LabError, match=r"see the last 50 tokens.*set context: 50 or less"):
        opened("mlx", tmp_path / "mlx-float32")


def test_what_it_computes_otherwise_or_leaves_unquantized_is_refused(
    tiny_safetensors: Path, tmp_path: Path
) -> None:
    more = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 4}
    folder = random_model("qwen2", tiny_safetensors, tmp_path, use_sliding_window=True, **more)
    with pytest.raises(LabError, match=r"it does not compute what Transformers does: .* nats"):
        write_folder(folder, "mlx-float32", tmp_path / "mlx-float32")
    folder = random_model("llama", tiny_safetensors, tmp_path / "narrow")
    with pytest.raises(LabError, match=r"of 128 do not divide the rows of 64 .* another group"):
        write_folder(folder, "mlx-b4-g128-float16", tmp_path / "mlx-b4-g128-float16")


def test_positions_that_mlx_lm_does_not_read_are_refused(source: Path, tmp_path: Path) -> None:
    config = json.loads((source / "config.json").read_text())
    config["rope_parameters"] = dict.fromkeys(("full_attention", "sliding_attention"), PLAIN)
    shutil.copytree(source, tmp_path / "two")
    (tmp_path / "two/config.json").write_text(json.dumps(config))
    with pytest.raises(LabError, match="mlx-lm does not read how its kinds of layers turn keys"):
        write_folder(tmp_path / "two", "mlx-float16", tmp_path / "mlx-float16")


def test_experts_that_are_stored_together_count(tiny_safetensors: Path, tmp_path: Path) -> None:
    folder = random_model("mixtral", tiny_safetensors, tmp_path, num_local_experts=4)
    made = tmp_path / "mlx-b4-g32-float16"
    write_folder(folder, made.name, made)
    facts, original = facts_of(made, folder), facts_of(folder)
    assert facts["parameters"] == original["parameters"]
    stored = sum(file["bytes"] for file in facts["files"])
    assert 8 * stored / facts["parameters"] == pytest.approx(facts["bits_per_weight"], rel=0.05)
    assert facts["tensor_types"]["INT4"] > 0.9 and facts["read_bytes"] is None
