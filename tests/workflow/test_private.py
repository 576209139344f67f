"""What people share of an experiment holds no path of the machine that ran it."""

import shlex
import shutil
from pathlib import Path

import pytest
import yaml

from conftest import Lab, tiny_config
from minillm_lab.commands import export, folder
from minillm_lab.experiment.config import load_experiment
from minillm_lab.experiment.for_others import command, shareable
from minillm_lab.wording import without_folders
from quality_lab import QUESTIONS, TEXT

HERE = "o'brien (old), models; x"


def test_everything_that_is_shared_names_no_folder(tiny_gguf: Path, tmp_path: Path) -> None:
    private = tmp_path / HERE
    private.mkdir()
    for name, text in {"text.txt": TEXT, "questions.yaml": QUESTIONS}.items():
        (private / name).write_text(text)
    model = shutil.copy(tiny_gguf, private / "tiny.F16.gguf")
    quality = {
        "text": str(private / "text.txt"),
        "questions": str(private / "questions.yaml"),
        "context": 64,
        "score_from": 16,
        "reference": {"runtime": "llama.cpp", "quantization": "F16"},
    }
    config = tiny_config(model, quality=quality, rounds=1, trials=1, scratch=str(private))
    lab = Lab(private / "lab", config)
    mine = private / "mine.yaml"
    mine.write_text(yaml.safe_dump(config))
    own = ["--configfile", str(mine), "--config", f"scratch={private}/scratch"]
    (private / "scratch").mkdir()
    lab.snakemake("--cores", "1", *own)
    lab.snakemake(*own, "--report", "report.html")

    results = lab.path("results")
    comparison = folder.read_comparison(results)
    assert "mine.yaml" in comparison.command and "scratch=scratch" in comparison.command
    for format_ in ("model-card", "llama-bench", "results"):
        lab.path(f"{format_}.txt").write_text(export.text_of(comparison, format_))
    shared = [
        *lab.folder.glob("*.md"), *lab.folder.glob("*.txt"), *lab.path("docs").iterdir(),
        *results.glob("*.md"), *results.glob("*.csv"), *results.glob("*.svg"),
        *results.glob("report/*"), lab.path("report.html"),
    ]  # fmt: skip
    assert len(shared) > 15
    for file in shared:
        content = file.read_text()
        for spelled in (HERE, str(tmp_path), HERE.replace(" ", "%20")):
            assert spelled not in content, file


@pytest.mark.parametrize(
    ("text", "shared"),
    [
        ("/home/me/my models/x.gguf: not a GGUF", "x.gguf: not a GGUF"),
        ("scratch=/fast/disk", "scratch=disk"),
        ("{'m': {'path': '/a/b c/m.gguf'}}", "{'m': {'path': 'm.gguf'}}"),
        ("~/models/x.gguf, /y", "x.gguf, /y"),
        ("~jane/x, -I/home/jane/inc, </home/jane/x>, //home//jane//x", "x, -Iinc, <x>, x"),
        ("/home/jane/dir/", "dir/"),
        ("/home/o'brien/models (old), x/y.gguf: not a GGUF", "y.gguf: not a GGUF"),
        ("file:///home/me/x", "x"),
        ("a:/home/me/x", "a:x"),
        ("80 t/s of models/m/Q8_0.gguf and https://huggingface.co/a/b, 1 / 2", None),
        ("(a+b)/(c+d), `q8_0`/`q4_0`, 50 %/50 %, €/kWh, 5 GB /s, </b>, and/or, n/a", None),
        ("https://x.org/a(b)/c, ../up/x, ./here/x, llama.cpp/src/x.cpp", None),
    ],
)  # fmt: skip
def test_absolute_paths_lose_their_folders(text: str, shared: str | None) -> None:
    assert without_folders(text) == (shared or text)


def test_the_reason_of_a_failure_names_no_folder(tiny_gguf: Path, tmp_path: Path) -> None:
    private = tmp_path / HERE
    private.mkdir()
    whole = shutil.copy(tiny_gguf, private / "tiny.F16.gguf")
    (private / "cut.F16.gguf").write_bytes(tiny_gguf.read_bytes()[:-100])
    config = tiny_config(whole, rounds=1, trials=1)
    config["models"]["cut"] = {"path": str(private / "cut.F16.gguf")}
    config["variants"]["cut"] = {"runtime": "llama.cpp", "quantization": "F16", "model": "cut"}
    lab = Lab(tmp_path / "lab", config)
    done = lab.snakemake("--cores", "1", "--keep-going", ok=False)
    assert "failed: cut" in done.stdout + done.stderr
    for file in (*lab.folder.glob("*.md"), *lab.path("results").glob("comparison.*")):
        assert HERE not in file.read_text(), file
    assert "cut.F16.gguf" in lab.path("RESULTS.md").read_text()


def test_a_folder_of_the_experiment_is_cut_where_a_path_begins_and_nowhere_else(
    tiny_gguf: Path,
) -> None:
    for path in ("/models/x.gguf", "/data/jane/x.gguf"):
        experiment = load_experiment(tiny_config(Path(path)))
        assert shareable(experiment, f"{path}: not a GGUF") == "x.gguf: not a GGUF"
        assert shareable(experiment, "cannot load /data/jane/secret/x.so") == "cannot load x.so"
        for text in ("https://huggingface.co/api/models/org/name", "build/models/m/Q8_0.gguf"):
            assert shareable(experiment, text) == text


def test_the_command_keeps_a_prompt_and_a_value_that_is_no_path() -> None:
    prompt = "/no_think Count km/h (or m)/(s)"
    assert command(["config.yaml"], {"prompt": prompt}).endswith(shlex.quote(f"prompt={prompt}"))
    assert "~500 words" in command(["config.yaml"], {"results": "~500 words"})
    odd = {"tiny": {"path": "/home/o'brien/m (old)/x.gguf"}}
    assert "brien" not in command(["/home/o'brien/x.yaml"], {"models": odd})
