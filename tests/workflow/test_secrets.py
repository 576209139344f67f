"""A token is nowhere but in the environment and on its way to the hub."""

from pathlib import Path

import pytest

from conftest import Lab, tiny_config
from hub_server import COMMIT, Hub

CANARY = "hf_canarycanarycanarycanarycanary"
FILE = "tiny-f16.gguf"


def test_a_token_is_written_nowhere(tmp_path: Path, tiny_gguf: Path) -> None:
    """Not in a log, a result, a page, a command line or Snakemake's own files; nor is a URL's."""
    with Hub() as hub:
        hub.publish("acme/tiny", {FILE: tiny_gguf.read_bytes()})
        gguf = {"repository": "acme/tiny", "revision": COMMIT, "files": {"F16": {"file": FILE}}}
        config = tiny_config(tiny_gguf, rounds=1, trials=1, repetitions=1, warmups=0)
        config["models"] = {"tiny": {"hub": {"gguf": gguf}}}
        env = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": CANARY}
        lab = Lab(tmp_path / "lab", config, env)
        lab.environment["HF_ENDPOINT"] = hub.url.replace("//", f"//me:{CANARY}@")
        said = [lab.snakemake("--cores", "1", ok=False)]
        assert "HF_ENDPOINT holds a name or password" in said[0].stderr
        lab.environment["HF_ENDPOINT"] = hub.url
        hub.error = "broken"
        said.append(lab.snakemake("--cores", "1", ok=False))
        assert "500 Internal Server Error" in said[1].stderr
        hub.error = ""
        said += [lab.run("--printshellcmds"), lab.snakemake("--detailed-summary")]
        lab.snakemake("--report", "report.html")
        sent = [headers.get("authorization", "") for _, _, headers in hub.requests]
    assert f"Bearer {CANARY}" in sent  # so it was in use
    for run in said:
        assert CANARY not in run.stdout + run.stderr
    told = [f for f in tmp_path.rglob("*") if f.is_file() and CANARY.encode() in f.read_bytes()]
    assert told == []
    assert list(lab.path(".snakemake/metadata").iterdir())  # and was looked into


@pytest.mark.parametrize("secret", [CANARY, f"https://me:{CANARY}@hub.example/acme/tiny"])
def test_a_token_in_the_config_is_refused_by_its_key(
    tmp_path: Path, tiny_gguf: Path, secret: str
) -> None:
    lab = Lab(tmp_path / "lab", tiny_config(tiny_gguf, models={"tiny": {"path": secret}}))
    said = lab.snakemake("-n", ok=False)
    assert "config.yaml: models.tiny.path: holds a token or password" in said.stderr
    assert CANARY not in said.stdout + said.stderr
