"""Whatever stands in a config, it works or is refused in lines that name the key."""

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import SMOLLM2, Lab, tiny_config
from minillm_lab.experiment.config import load_experiment
from minillm_lab.experiment.plan import Plan
from minillm_lab.experiment.yaml_file import check_config_file
from minillm_lab.jobs.errors import LabError
from minillm_lab.report.page import BEGIN, END

FULL: dict[str, Any] = SMOLLM2 | {
    "precision": "2%",
    "scratch": "/scratch",
    "models": SMOLLM2["models"]
    | {
        "hub": {
            "hub": {
                "repository": "acme/tiny",
                "revision": "main",
                "gguf": {
                    "repository": "acme/tiny-GGUF",
                    "revision": "main",
                    "files": {"Q8_0": {"file": "a.gguf", "sha256": "0" * 64}},
                },
            }
        },
        "mine": {"path": "mine.gguf", "quantization": "Q8_0"},
        "folder": {
            "path": "folder",
            "files": {
                "UD-Q4": {"file": "a.gguf", "sha256": "0" * 64},
                "Q8_0": {"parts": [{"file": f"a-0000{i}-of-00002.gguf"} for i in (1, 2)]},
            },
        },
    },
    "variants": SMOLLM2["variants"]
    | {
        "mixture": {
            "runtime": "llama.cpp",
            "quantization": "Q4_K_M",
            "tensors": {"ffn_down": "Q6_K", "blk.(0|1).*": "Q8_0"},
        }
    },
    "quality": SMOLLM2["quality"] | {"text": "own", "context": 512, "exact": False},
}


def places(config: Any, *above: Any) -> list[tuple[Any, ...]]:
    """Every key of a config, as the path to it."""
    keys = config if isinstance(config, dict) else ()
    return [p for k in keys for p in [(*above, k), *places(config[k], *above, k)]]


def put(place: tuple[Any, ...], value: Any) -> dict[str, Any]:
    config = copy.deepcopy(FULL)
    at: Any = config
    for name in place[:-1]:
        at = at[name]
    at[place[-1]] = value
    return config


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.dates(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=9) | st.integers(), inner, max_size=3)
    ),
    max_leaves=6,
) | st.sampled_from(["../..", "/etc/passwd", "a;b", "$(x)", "{x}", "a\nb", "\0", -1, 10**5000, ""])


def refused_or_works(config: Any, *named: str) -> None:
    try:
        experiment = load_experiment(config, "config.yaml")
    except LabError as error:
        lines = str(error).split("\n")
        assert all(re.match(r"config\.yaml: \S", line) for line in lines), lines
        assert all(len(line) < 2000 for line in lines)
        assert not named or any(all(n in line for n in named) for line in lines), lines
        return
    plan = Plan(experiment, "workflow")
    for variant in experiment.variants:  # what the rules ask of every experiment
        for path in (plan.weights(variant), plan.results):
            assert ".." not in path.split("/") and not path.startswith("/")
        assert plan.settings(variant) and plan.models.provenance(plan.model(variant))


@settings(
    max_examples=300, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck)
)
@given(place=st.sampled_from(places(FULL)), value=anything)
def test_any_value_at_any_key(place: tuple[Any, ...], value: Any) -> None:
    refused_or_works(put(place, value))


@settings(
    max_examples=100, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck)
)
@given(
    place=st.sampled_from([(), ("models",), ("variants",), ("quality",), ("models", "hub", "hub")]),
    name=st.text(min_size=1, max_size=90)
    | st.sampled_from(["../x", "a/b", "a b", "A", "-x", "x\n"]),
)
def test_any_key_where_none_belongs(place: tuple[Any, ...], name: str) -> None:
    if name not in FULL:
        refused_or_works(put((*place, name), {"odd": 1}))


WRONG = {
    "prompt": ["", 5, "a\0b", "x" * 20_001],
    "rounds": [0, 1001, 1.5, "3", True],
    "results": ["..", "a/../b", "/x", "a b", "", "{x}"],
    "baseline": ["nope", 1, ["fp16"]],
    "depths": [1, [1], "128"],
    "readme": ["", "a\nb", 1, "{x}.md"],
    "scratch": ["", "scratch", "~/x", "/a\nb", "/{x}", "/x\n", 1],
    "precision": ["2", 2, "-1%"],
    "models.mine.path": ["", "a{b}.gguf", "a\0b", 3],
    "models.hub.hub.repository": ["tiny", "a/b/c", "../x", "a/..", "a b/c"],
    "models.hub.hub.revision": ["../../x", "/x", "a b", ""],
    "models.hub.hub.gguf.files.Q8_0.file": ["../a.gguf", "/a.gguf", "a{b}.gguf", "a.bin"],
    "models.smollm2-135m-instruct.package.name": ["--index-url", "a b", "a;b"],
    "models.smollm2-135m-instruct.package.version": ["1 --pre", ">=1", ""],
    "variants.fp16.dtype": ["int4", 16],
    "variants.fp16.runtime": ["vllm", 1, 16**5000, {16**5000: 1}, {16**5000}],
    "variants.q8_0.threads": [0, 5000, "two", [0]],
    "quality.text": ["", "a{b}.txt", 1],
    "quality.chunks": [1, "all"],
}


@pytest.mark.parametrize("key", WRONG)
def test_what_is_wrong_is_named(key: str) -> None:
    place = tuple(key.split("."))
    for value in WRONG[key]:
        with pytest.raises(LabError, match=rf"config\.yaml: .*{re.escape(place[-1])}"):
            load_experiment(put(place, value), "config.yaml")


BASE = yaml.safe_dump(tiny_config(Path("tiny.F16.gguf")))
NINE = range(1, 10)
LISTS = "l0: &l0 [1]\n" + "".join(f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]\n" for i in NINE)
MAPS = "m0: &m0 {a: 1}\n" + "".join(
    f"m{i}: &m{i} {{{', '.join(f'k{j}: *m{i - 1}' for j in NINE)}}}\n" for i in NINE
)
FILES = {
    "a key twice": (BASE + "rounds: 5\n", "the key 'rounds' stands twice"),
    "a variant twice": (
        BASE.replace("variants:\n", "variants:\n  f16: {runtime: llama.cpp, quantization: F16}\n"),
        "the key 'f16' stands twice",
    ),
    "a bomb of lists": (BASE + LISTS, "stand for more than"),
    "a bomb of mappings": (BASE + MAPS, "stand for more than"),
    "a list of itself": (BASE + "x: &x [*x]\n", "holds the alias itself"),
    "a mapping of itself": (BASE + "x: &x {a: *x}\n", "holds the alias itself"),
    "brackets without end": (BASE + "x: " + "[" * 5000, "not YAML"),
    "a tab": ("a:\n\tb: 1\n", "line 2: not YAML"),
    "a quote without end": ('a: 1\nb: "x\n\nc: 2\n', "(in what begins in line 2)"),
    "an anchor twice": (BASE + "x: &x 1\ny: &x 2\n", "found duplicate anchor"),
    "a character that is none": ('a: "\\UFFFFFFFF"\n', "not YAML"),
    "a line too far to the right": ("a:\n  b: 1\nc: 2\n  d: 3\n", "line 4: not YAML"),
    "Python by a key": ("__use_yte__: true\n" + BASE, "would run Python"),
}


@pytest.mark.parametrize("text, said", FILES.values(), ids=FILES.keys())
def test_what_yaml_lets_pass_is_refused(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    with pytest.raises(LabError, match=r"config\.yaml: ") as error:
        check_config_file(file)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_bytes(b"\xff\xfe\x00\x01\xd8\x00")
    with pytest.raises(LabError, match="not YAML that can be read"):
        check_config_file(tmp_path / "config.yaml")


def test_aliases_and_merges_of_a_common_size_pass(tmp_path: Path) -> None:
    text = "a: &a {x: 1}\nb: {<<: *a, y: 2}\nc: {<<: *a, <<: *a}\nd: *a\n"
    (tmp_path / "config.yaml").write_text(text)
    check_config_file(tmp_path / "config.yaml")


@pytest.mark.parametrize("name", ["a bomb of mappings", "Python by a key"])
def test_snakemake_never_reads_it(name: str, tmp_path: Path) -> None:
    lab = Lab(tmp_path / "lab", {})
    lab.path("config.yaml").write_text(FILES[name][0])
    done = lab.snakemake("-n", ok=False)
    (error,) = [
        line for line in done.stderr.splitlines() if line.startswith("error: config.yaml: ")
    ]
    assert FILES[name][1] in error
    assert "Traceback" not in done.stderr


def test_odd_names_paths_and_prompts_just_work(tmp_path: Path, tiny_gguf: Path) -> None:
    lab = Lab(tmp_path / "a lab, é", {})
    weights = "a b $(touch CANARY); 'q' \"d\" & *.F16.gguf"
    lab.path(weights).symlink_to(tiny_gguf)
    question = "Why 'not'? \"{x}\" {{y}} {wildcards.variant}\n\n$(touch CANARY) `touch CANARY` \\n"
    question += " ñ 你好 मूल्य 🙂 %s ${HOME}"
    (scratch := tmp_path / "scratch $(touch CANARY) 'é'").mkdir()
    lab.config = tiny_config(
        Path(weights), prompt=question, scratch=str(scratch), results="r;$(touch+CANARY)'&é/x",
        readme="my page $(touch CANARY) 'é'.md", context=256,
        rounds=1, trials=1, repetitions=1, warmups=0,
        variants={"f16": {"runtime": "llama.cpp", "quantization": "F16"}},
    )  # fmt: skip
    lab.write_config()
    lab.path(lab.config["readme"]).write_text(f"{BEGIN}\n{END}\n")
    lab.run()
    assert question in lab.json(f"{lab.config['results']}/prompts/tiny.json")["text"]
    assert lab.json(f"{lab.config['results']}/f16.json")["protocol"]["scratch"] is True
    assert not list(tmp_path.rglob("CANARY")) and not list(scratch.iterdir())
