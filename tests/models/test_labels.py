"""Names that publishers give to GGUF files become labels: short, without dots, no twice."""

import pytest

from minillm_lab.models.labels import grouped, labelled
from minillm_lab.models.remote import File


def labels(model: str, *paths: str) -> list[str]:
    files = [File(path, 1, None, f"owner/{model}-GGUF") for path in paths]
    return list(labelled(grouped(files, "source")))


@pytest.mark.parametrize(
    ("model", "path", "label"),
    [
        ("Qwen2.5-0.5B-Instruct", "qwen2.5-0.5b-instruct-q4_k_m.gguf", "Q4_K_M"),
        ("Llama-3.2-1B", "Llama-3.2-1B-IQ4_XS.gguf", "IQ4_XS"),
        ("Qwen3-0.6B", "Qwen3-0.6B-UD-Q4_K_XL.gguf", "UD-Q4_K_XL"),
        ("Qwen3-0.6B-i1", "Qwen3-0.6B.i1-Q6_K.gguf", "i1-Q6_K"),
        ("gpt-oss-20b", "gpt-oss-20b-MXFP4.gguf", "MXFP4"),
        ("gemma", "gemma-fp16.gguf", "F16"),
        ("gemma", "BF16/gemma-BF16-00001-of-00001.gguf", "BF16"),
        ("tiny", "tiny-best.of.all.gguf", "best-of-all"),
        ("tiny", "tiny.gguf", "tiny"),
        ("tiny", "mmproj-F16.gguf", "mmproj-F16"),
        ("m", "mmproj-m-F16.gguf", "mmproj-m-F16"),
        ("m", "max-Q9.x.gguf", "max-Q9-x"),
        ("tiny", "other-Q4_0_4_4.gguf", "Q4_0_4_4"),
    ],
)
def test_a_label_is_what_tells_files_apart(model: str, path: str, label: str) -> None:
    assert labels(model, path) == [label]


def test_labels_of_one_type_stay_apart() -> None:
    assert labels("m", "imatrix/m-Q4_K_M.gguf", "m-Q4_K_M.gguf", "plain/m-q4_k_m.gguf") == [
        "imatrix-Q4_K_M", "Q4_K_M", "plain-Q4_K_M"
    ]  # fmt: skip


def test_publishers_tell_files_of_one_name_apart() -> None:
    paths = [f"{owner}/m-GGUF/m-Q4_K_M.gguf" for owner in ("bart", "mrad")]
    here = [*paths, "m-v1-Q8_0.gguf", "m-v2-Q8_0.gguf"]
    assert list(labelled(grouped([File(path, 1) for path in here], "source"))) == [
        "bart-Q4_K_M", "Q8_0", "Q8_0-2", "mrad-Q4_K_M"
    ]  # fmt: skip
    there = [File(path, 1, None, f"{owner}/m-GGUF") for owner in ("bart", "mrad")
             for path in ("m-Q4_K_M.gguf", f"m-{owner}.gguf")]  # fmt: skip
    assert list(labelled([[file] for file in there])) == [
        "bart-Q4_K_M", "bart", "mrad-Q4_K_M", "mrad"
    ]  # fmt: skip


def test_parts_are_one_file_in_their_order() -> None:
    names = [f"m-Q8_0-{i:05}-of-00012.gguf" for i in range(1, 13)]
    (parts,) = grouped([File(name, 1) for name in reversed(names)], "source")
    assert [file.path for file in parts] == names
