"""The config: what is wrong is said in one line that names the key; what is right just works."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import MISSING, ROOT, SMOLLM2, Lab, tiny_config
from minillm_lab.experiment.config import Experiment, load_experiment
from minillm_lab.experiment.plan import Plan
from minillm_lab.jobs.errors import LabError
from minillm_lab.models.quantize import quantize
from minillm_lab.result import Result

PARTS = [{"file": f"a-0000{i}-of-00003.gguf"} for i in (1, 2, 3)]
BAD = {
    "a goal of nothing": ("precision", "0%", "must match"),
    "an empty sweep": ("variants.q4_k_m.threads", [], "threads"),
    "a typo": ("variants.q4_k_m.quantisation", "Q4_K_M", "did you mean 'quantization'"),
    "a typo on top": ("promt", "x", "did you mean 'prompt'"),
    "an unknown type": ("variants.q4_k_m.quantization", "Q4_K_XXL", "'Q4_K_XXL' is not one of"),
    "a misspelt type": ("variants.q4_k_m.quantization", "q4_km", "; did you mean 'Q4_K_M'?"),
    "a misspelt runtime": ("variants.q4_k_m.runtime", "llamacpp", "; did you mean 'llama.cpp'?"),
    "an unknown runtime": ("variants.q4_k_m.runtime", "vllm", "'vllm' is not one of"),
    "a reference in a runtime that gives none": (
        "quality.reference",
        {"runtime": "mlx"},
        "'mlx' is not one of 'transformers', 'llama.cpp'",
    ),
    "a missing model": ("variants.q4_k_m.model", "nope", "no model 'nope'"),
    "a missing baseline": ("baseline", "nope", "no variant 'nope'"),
    "a reserved name": ("variants.comparison", {"runtime": "transformers"}, "reserved"),
    "a name with a slash": ("variants.a/b", {"runtime": "transformers"}, "must match"),
    "a name with a shell's characters": ("variants.a;b", {"runtime": "transformers"}, "must match"),
    "text for a number": ("rounds", "three", "valid integer"),
    "no rounds": ("rounds", 0, "greater than or equal to 1"),
    "a folder outside": ("results", "../elsewhere", "relative path"),
    "two sources": ("models.smollm2-135m-instruct.path", "/x.gguf", "exactly one of"),
    "a short checksum": ("models.smollm2-135m-instruct.package.sha256", "abc", "must match"),
    "a node that is not there": ("variants.q4_k_m.node", "nope", "no node 'nope'"),
    "options smuggled into a partition": (
        "nodes",
        {"big": {"partition": "p --exclusive; touch x"}},
        "nodes.big.partition: 'p --exclusive; touch x' is not allowed",
    ),
    "a line smuggled into a constraint": (
        "nodes",
        {"big": {"constraint": "rome\ntouch x"}},
        "nodes.big.constraint: 'rome\\ntouch x' is not allowed",
    ),
    "a line after an account": (
        "nodes",
        {"big": {"account": "us\n"}},
        "nodes.big.account: 'us\\n' is not allowed",
    ),
    "a command as a constraint": ("nodes", {"big": {"constraint": "$(touch x)"}}, "not allowed"),
    "an option as an account": ("nodes", {"big": {"account": "--uid=0"}}, "not allowed"),
    "an unknown type in a sweep": (
        "variants.q4_k_m.quantization",
        ["Q8_0", "Q9"],
        "'Q9' is not one of",
    ),
    "no weights": ("variants.q4_k_m", {"runtime": "llama.cpp"}, "name either a quantization or a"),
    "weights twice": ("variants.q4_k_m.file", "UD", "name either a quantization or a file"),
    "a file that the model does not list": (
        "variants.ud",
        {"runtime": "llama.cpp", "file": "UD-Q4_K_XL"},
        "the model lists no file 'UD-Q4_K_XL'; files: none",
    ),
    "a reference that the model does not list": (
        "quality.reference",
        {"runtime": "llama.cpp", "file": "BF16"},
        "quality.reference.file: the model lists no file 'BF16'",
    ),
    "a reference of a model's own that is no variant": (
        "models.smollm2-135m-instruct.reference",
        "q9",
        "models.smollm2-135m-instruct.reference: no variant 'q9'; variants: fp16",
    ),
    "a model's reference in another model": (
        "models.mine",
        {"path": "x.Q8_0.gguf", "reference": "q8_0"},
        "models.mine.reference: 'q8_0' is a variant of smollm2-135m-instruct; name one of mine",
    ),
    "a reference that another library quantized": (
        "quality.reference",
        {"runtime": "transformers", "quantization": "bnb-nf4"},
        "quality.reference: bnb-nf4 cannot be a reference; name a variant in llama.cpp",
    ),
    "a method that no library has": (
        "variants.fp16",
        {"runtime": "transformers", "quantization": "bnb-int4"},
        "variants.fp16.quantization: 'bnb-int4' is not one of 'bnb-nf4', 'bnb-int8'",
    ),
    "bits that MLX has not": (
        "variants.fp16",
        {"runtime": "mlx", "bits": 7},
        "variants.fp16.bits: 7 is not one of",
    ),
    "a key that a model's reference has not": (
        "models.smollm2-135m-instruct.reference",
        {"runtime": "llama.cpp", "quantizaton": "F16"},
        "models.smollm2-135m-instruct.reference.quantizaton: unknown key; did you mean",
    ),
    "files of a package": (
        "models.smollm2-135m-instruct.files",
        {"Q8_0": {"file": "a.gguf"}},
        "files are those of a folder",
    ),
    "a file and parts": (
        "models.mine",
        {"path": "x", "files": {"Q8_0": {"file": "a.gguf", "parts": PARTS}}},
        "name either a file or its parts",
    ),
    "a missing part": (
        "models.mine",
        {"path": "x", "files": {"Q8_0": {"parts": [PARTS[0], PARTS[2]]}}},
        "part 1 of 2 is 'a-00001-of-00003.gguf', not 'a-00001-of-00002.gguf'",
    ),
    "parts of two names": (
        "models.mine",
        {
            "path": "x",
            "files": {"Q8_0": {"parts": [*PARTS[:2], {"file": "b-00003-of-00003.gguf"}]}},
        },
        "part 3 of 3 is 'b-00003-of-00003.gguf', not 'a-00003-of-00003.gguf'",
    ),
    "two files of one name": (
        "models.mine",
        {"path": "x", "files": {"A": {"file": "a/x.gguf"}, "B": {"file": "a--x.gguf"}}},
        "two files would be named 'a--x.gguf' here",
    ),
    "a file of a repository without its commit": (
        "models.mine",
        {
            "hub": {
                "gguf": {
                    "repository": "a/b",
                    "revision": "1",
                    "files": {"Q8_0": {"file": "x.gguf", "repository": "c/d"}},
                }
            }
        },
        "name both the file's repository and its revision",
    ),
    "a folder's file in a repository": (
        "models.mine",
        {"path": "x", "files": {"A": {"file": "x.gguf", "repository": "a/b", "revision": "1"}}},
        "files of a folder are in no repository",
    ),
    "a label with a dot": (
        "models.mine",
        {"path": "x", "files": {"a.b": {"file": "x.gguf"}}},
        "must match",
    ),
    "an option of the other runtime": ("variants.fp16.gpu_layers", 3, "unknown key"),
}


def changed(key: str, value: Any) -> dict[str, Any]:
    config = copy.deepcopy(SMOLLM2)
    *parents, last = key.split(".")
    place = config
    for parent in parents:
        place = place[parent]
    place[last] = value
    return config


@pytest.mark.parametrize("key, value, said", BAD.values(), ids=BAD.keys())
def test_what_is_wrong_is_named(key: str, value: Any, said: str) -> None:
    with pytest.raises(LabError) as error:
        load_experiment(changed(key, value), "config.yaml")
    assert said in str(error.value)
    assert key.split(".")[-1] in str(error.value)
    assert all(line.startswith("config.yaml: ") for line in str(error.value).splitlines())


@pytest.mark.parametrize("name", ["a typo", "an unknown type", "a missing model"])
def test_snakemake_says_it_before_any_job(name: str, tmp_path: Path) -> None:
    key, value, said = BAD[name]
    lab = Lab(tmp_path / "lab", changed(key, value))
    done = lab.snakemake("--cores", "1", ok=False)
    errors = [line for line in done.stderr.splitlines() if "config.yaml: " in line]
    assert said in errors[-1]
    assert "Traceback" not in done.stderr and "Job stats" not in done.stdout + done.stderr
    assert not lab.path("models").exists()


@pytest.mark.parametrize(
    "path", [ROOT / "config.yaml", *sorted(ROOT.glob("experiments/*.yaml"))], ids=lambda p: p.stem
)
def test_every_shipped_experiment_plans(path: Path, tmp_path: Path) -> None:
    experiment = yaml.safe_load(path.read_text())
    for name, variant in load_experiment(experiment).variants.items():
        if variant.engine in MISSING:
            del experiment["variants"][name]
    plan = Lab(tmp_path / "lab", experiment).planned()
    variants = len(load_experiment(experiment).variants)
    assert plan["collect"] == variants
    assert plan["round"] == variants * experiment["rounds"]


def test_two_experiments_share_neither_results_nor_page() -> None:
    experiments = [
        load_experiment(yaml.safe_load(path.read_text()))
        for path in [ROOT / "config.yaml", *ROOT.glob("experiments/*.yaml")]
    ]
    assert len({e.results for e in experiments}) == len(experiments)
    assert len({e.readme for e in experiments}) == len(experiments)


def test_another_config_file_takes_the_place_of_the_default(tmp_path: Path) -> None:
    lab = Lab(tmp_path / "lab", SMOLLM2)
    lab.path("tiny.F16.gguf").touch()
    other = tiny_config(Path("tiny.F16.gguf"), results="elsewhere")
    lab.path("other.yaml").write_text(yaml.safe_dump(other))
    plan = lab.planned("--configfile", "other.yaml")
    assert plan["collect"] == 2  # and none of the default's five


def test_one_key_from_the_command_line(tmp_path: Path) -> None:
    lab = Lab(tmp_path / "lab", SMOLLM2)
    assert lab.planned("--config", "rounds=5")["round"] == 5 * len(SMOLLM2["variants"])


@pytest.mark.parametrize("shape, name", [(Experiment, "config"), (Result, "result")])
def test_schemas_are_generated_from_the_code(shape: Any, name: str) -> None:
    committed = json.loads((ROOT / f"workflow/schemas/{name}.schema.json").read_text())
    assert committed == shape.model_json_schema()


def test_every_key_of_a_config_is_described_in_full_sentences() -> None:
    schema = Experiment.model_json_schema()
    for mapping in (schema, *schema["$defs"].values()):
        for key, described in {"": mapping, **mapping["properties"]}.items():
            text = described.get("description", "")
            assert re.fullmatch(r"[A-Z].* .*\.", text, re.DOTALL), (mapping["title"], key, text)


def test_a_thread_sweep_is_one_short_list() -> None:
    swept = load_experiment(changed("variants.q4_k_m.threads", [1, 2]))
    assert {"q4_k_m-t1", "q4_k_m-t2"} <= swept.variants.keys()
    assert "q4_k_m" not in swept.variants
    assert json.loads(Plan(swept, "").settings("q4_k_m-t2"))["threads"] == 2


def test_a_sweep_names_its_variants_by_what_varies() -> None:
    lists = {"quantization": ["Q8_0", "Q4_K_M"], "threads": [1, 2], "context": [256, 512]}
    entry = {"runtime": "llama.cpp", "flash_attention": "on"} | lists
    swept = load_experiment(changed("variants.s", entry))
    names = [name for name in swept.variants if name.startswith("s-")]
    assert len(names) == 8 and {"s-q8_0-t1-c256", "s-q4_k_m-t2-c512"} <= set(names)
    chosen = json.loads(Plan(swept, "").settings("s-q4_k_m-t2-c512"))
    assert [chosen[key] for key in ("quantization", "threads", "context")] == ["Q4_K_M", 2, 512]
    assert chosen["flash_attention"] == "on"
    larger = load_experiment(changed("variants.s", entry | {"threads": [1, 2, 4]}))
    assert len(larger.variants) == len(swept.variants) + 4
    assert all(
        Plan(larger, "").settings(name) == Plan(swept, "").settings(name) for name in swept.variants
    )


def test_settings_of_other_runtimes_can_be_swept() -> None:
    int4 = {"runtime": "onnx", "quantization": "int4"}
    entry = int4 | {"block_size": [16, 32], "algo_config": ["rtn", "k_quant"], "accuracy_level": 1}
    swept = load_experiment(changed("variants.mine", entry)).variants
    names = [f"mine-{method}-bs{size}" for method in ("rtn", "k_quant") for size in (16, 32)]
    assert {*names} < {*swept}
    swept = load_experiment(changed("variants.mlx", {"runtime": "mlx", "bits": [4, 8]})).variants
    assert swept["mlx-b4"].form == "mlx-b4-g64-float16"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"runtime": "mlx", "group": 32}, "group is that of quantized weights; name bits"),
        ({"runtime": "openvino", "dynamic_quantization": False}, "false is no number"),
        (
            {"runtime": "onnx", "quantization": "int4", "accuracy_level": True},
            "true is no number",
        ),
    ],
)
def test_what_would_change_nothing_or_is_no_number_is_refused(
    settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(LabError, match=rf"variants\.mine\S*: .*{said}"):
        load_experiment(changed("variants.mine", settings))


def test_a_sweep_makes_no_name_twice() -> None:
    config = changed("variants.q4_k_m-t2", {"runtime": "transformers"})
    config["variants"]["q4_k_m"]["threads"] = [1, 2]
    with pytest.raises(LabError, match=r"variants\.q4_k_m-t2: makes the name 'q4_k_m-t2' a second"):
        load_experiment(config)


@pytest.mark.parametrize(
    ("quantization", "matrix", "said"),
    [
        ("Q4_1", "none", "taken as it was published"),
        ("Q4_1", "mine.gguf", "taken as it was published"),
        ("Q8_0", "mine.gguf", "no matrix changes a file of Q8_0"),
    ],
)
def test_a_matrix_that_would_change_nothing_is_refused(
    quantization: str, matrix: str, said: str
) -> None:
    config = changed("variants.q4_k_m.imatrix", matrix)
    config["variants"]["q4_k_m"]["quantization"] = quantization
    with pytest.raises(LabError, match=rf"variants\.q4_k_m\.imatrix: .*{said}"):
        load_experiment(config)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"tensors": {"ffn_down": "Q4_K_M"}},
            "a recipe for whole files; a single tensor takes Q4_K",
        ),
        ({"tensors": {"ffn_down": "IQ3_XS"}}, "a single tensor takes IQ3_S"),
        ({"tensors": {"ffn_down": "q8_0"}}, "write Q8_0 for 'q8_0'"),
        ({"tensors": {"ffn_down": "Q9_K"}}, "'Q9_K' is not one of 'F32', 'F16'"),
        ({"tensors": {"blk.(0": "Q8_0"}}, r"'blk\.\(0' is no regular expression: missing \)"),
        ({"tensors": {"blk.[[:digit:]]": "Q8_0"}}, "is no regular expression: Possible nested set"),
        ({"tensors": {"": "Q8_0"}}, "'' is not allowed"),
        ({"tensors": {"ffn": "Q8_0"}, "quantization": "Q4_1"}, "taken as it was published"),
        (
            {"tensors": {"ffn": "Q8_0"}, "quantization": "F16"},
            "stores all weights of a file of F16",
        ),
    ],
)
def test_a_mixture_that_cannot_be_made_is_refused(settings: dict[str, Any], said: str) -> None:
    config = changed("variants.q4_k_m.imatrix", "own")
    config["variants"]["q4_k_m"] |= settings
    with pytest.raises(LabError, match=rf"variants\.q4_k_m\.\S*tensors\S*: .*{said}") as error:
        load_experiment(config)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "a recipe takes a size, bits_per_weight or a time"),
        ({"size": "90MB", "bits_per_weight": 4.0}, "and not the first two together"),
        ({"size": 105}, "write a unit behind 105, such as 105MB"),
        ({"size": "0.0MB"}, "no file is that small; name a larger size"),
        ({"size": {"of": "nobody"}}, "no variant 'nobody'"),
        ({"size": {"of": "fp16"}}, "'fp16' is no file of a type in llama.cpp"),
        ({"size": "\u0669MB"}, "must match"),
        ({"bits_per_weight": True}, "bits_per_weight"),
        ({"bits_per_weight": 0.5}, "greater than or equal to 1"),
        ({"size": "90MB", "types": ["MXFP4"]}, "a recipe cannot choose MXFP4"),
        ({"size": "90MB", "tensors": {"ffn": "Q8_0"}}, "chooses the types of tensors itself"),
        ({"size": "90MB", "quantization": "Q4_K_M"}, "are those of a recipe"),
        ({"time": "20ms", "quantization": "Q4_K_M"}, "are those of a recipe"),
        ({"time": 20}, "write a unit behind 20, such as 20ms"),
        ({"time": "0ms"}, "no token takes no time; name a longer one"),
        ({"time": "20min"}, "must match"),
        ({"time": {"of": "fp16"}}, "time.of: 'fp16' is no file of a type in llama.cpp"),
        ({"time": "20ms", "device": "gpu"}, "time is measured on the CPU"),
        ({"time": "20ms", "node": "rome"}, "time is measured on whichever node makes the recipe"),
        ({"time": "20ms", "threads_batch": 2}, "llama.cpp runs without threads_batch; leave time"),
        ({"time": []}, r"write it as 20ms, or as \{of: a variant\}"),
    ],
)
def test_a_recipe_that_cannot_be_made_is_refused(settings: dict[str, Any], said: str) -> None:
    asked = {"runtime": "llama.cpp", "quantization": "recipe"} | settings
    with pytest.raises(LabError, match=said) as error:
        load_experiment(changed("variants.mine", asked))
    assert "variants.mine" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("of", "said"),
    [
        ("fp16", "'fp16' is no file of a type in llama.cpp"),
        ("mine", "'mine' is no file of a type in llama.cpp"),
        ("theirs", "'theirs' is of another model"),
    ],
)
def test_a_reference_by_a_recipe_has_a_size_of_its_own_model(of: str, said: str) -> None:
    recipe = {"runtime": "llama.cpp", "quantization": "recipe"}
    config = changed("variants.mine", recipe | {"size": "90MB"})
    config["models"]["other"] = {"path": "/data/other.gguf"}
    other = {"runtime": "llama.cpp", "quantization": "Q8_0", "model": "other"}
    config["variants"]["theirs"] = other
    config["models"][config["model"]]["reference"] = recipe | {"size": {"of": of}}
    with pytest.raises(LabError, match=said):
        load_experiment(config)


def test_a_recipe_is_named_by_the_file_whose_size_it_takes() -> None:
    """Two experiments may name two files alike; and a variant's other name changes no file."""

    def weights(name: str, type_: str, types: list[str]) -> str:
        config = changed(f"variants.{name}", {"runtime": "llama.cpp", "quantization": type_})
        recipe = {"runtime": "llama.cpp", "quantization": "recipe", "types": types}
        config["variants"]["mine"] = recipe | {"size": {"of": name}}
        return Plan(load_experiment(config), "").weights("mine")

    types = ["Q8_0", "Q4_K"]
    assert weights("stock", "Q6_K", types) != weights("stock", "Q3_K_M", types)
    assert weights("stock", "Q6_K", types) == weights("q6", "Q6_K", [*reversed(types)])


def test_a_recipe_s_time_and_its_threads_make_another_file_and_no_time_does_not() -> None:
    def weights(**more: Any) -> str:
        recipe = {"runtime": "llama.cpp", "quantization": "recipe", "size": "90MB"}
        config = changed("variants.mine", recipe | more)
        config["variants"]["stock"] = {"runtime": "llama.cpp", "quantization": "Q3_K_M"}
        return Plan(load_experiment(config), "").weights("mine")

    timed = [
        weights(),
        weights(time="20ms"),
        weights(time={"of": "q4_k_m"}),
        weights(time={"of": "stock"}),
        weights(time={"of": "stock"}, threads=1),
    ]
    assert len({*timed}) == len(timed) and weights(threads=1) == timed[0]


def test_a_sweep_over_sizes_names_recipes_by_them() -> None:
    sizes = ["90MB", {"of": "q4_k_m"}]
    entry = {"runtime": "llama.cpp", "quantization": "recipe", "size": sizes}
    swept = load_experiment(changed("variants.mine", entry)).variants
    assert swept["mine-90mb"].size == "90MB" and swept["mine-q4_k_m"].size.of == "q4_k_m"


def test_mixtures_that_differ_are_different_files() -> None:
    q8 = {"runtime": "llama.cpp", "quantization": "Q8_0"}
    mixtures: dict[str, dict[str, Any]] = {
        "plain": {},
        "a": {"tensors": {"ffn": "Q6_K", "blk.0": "Q4_K"}},
        "turned": {"tensors": {"blk.0": "Q4_K", "ffn": "Q6_K"}},
        "b": {"tensors": {"ffn": "Q6_K", "blk.0": "Q5_K"}},
        "none": {"tensors": {"ffn": "Q6_K", "blk.0": "Q5_K"}, "imatrix": "none"},
        "mine": {"tensors": {"ffn": "Q6_K", "blk.0": "Q5_K"}, "imatrix": "mine.txt"},
        "as-b": {"tensors": {"ffn": "Q6_K", "blk.0": "Q5_K"}, "threads": 2},
    }
    variants: dict[str, Any] = {name: q8 | settings for name, settings in mixtures.items()}
    config = SMOLLM2 | {"variants": variants, "baseline": "plain", "quality": None}
    plan = Plan(load_experiment(config), "")
    model, forms = plan.model("plain"), {name: plan.form(name) for name in variants}
    assert forms.pop("as-b") == forms["b"] and len({*forms.values()}) == len(forms)
    assert forms["plain"] == "Q8_0"  # no matrix changes it; one changes tensors of other types
    own, given = f"models/{model}/imatrix.gguf", json.dumps(mixtures["b"]["tensors"])
    assert plan.imatrix(model, forms["b"]) == own and plan.models.mixture(forms["b"]) == given
    assert plan.imatrix(model, forms["none"]) == [] and plan.models.mixture(forms["none"]) == given
    of = re.fullmatch(r"Q8_0\+imatrix(-\w{8})\+tensors-\w{8}", forms["mine"])
    assert of and plan.imatrix(model, forms["mine"]) == f"models/{model}/imatrix{of[1]}.gguf"
    assert plan.models.calibration(of[1]) == "mine.txt"
    assert plan.models.mixture("Q8_0") == "{}"
    assert plan.settings("a") == plan.settings("b")  # the file is what differs


@pytest.mark.parametrize("type_", ["F16", "BF16", "Q8_0", "MXFP4_MOE"])
def test_a_local_file_is_what_its_header_says_whatever_its_name(
    type_: str, tiny_gguf: Path, tmp_path: Path
) -> None:
    file, known = tmp_path / "my-model.Q4_0.gguf", type_ if type_ != "MXFP4_MOE" else "unknown"
    quantize(tiny_gguf, type_, file)
    config = changed("models.mine", {"path": str(file)})
    mine = load_experiment(config).models["mine"]
    assert list(mine.shipped_gguf) == [known]
    assert mine.unpacked == (type_ not in ("F16", "BF16"))
    assert (
        json.loads(Plan(load_experiment(config), "").models.provenance("mine"))["quantization"]
        == known
    )
    config["models"]["mine"]["quantization"] = "Q6_K"
    with pytest.raises(LabError, match=rf"models: .*Q4_0\.gguf is {known}, not Q6_K; leave"):
        load_experiment(config)
