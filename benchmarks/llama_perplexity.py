"""The lab's quality figures held against llama-perplexity's, and how long both take.

    python benchmarks/llama_perplexity.py --llama-perplexity PATH

Both score the same chunks of the same text against the F16 file, in whole commands that take turns:
llama-perplexity by its --kl-divergence, the lab by the modules of its workflow under
llama-perplexity's protocol, against an exact reference and against the compact one that experiments
use. F16 with quantized caches of keys and values is scored besides. Prints the figures side by
side, and what the commands took.
"""

import argparse
import json
import re
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from lab import GGUF, ROOT, default_plan, output_of, program, weights_of
from minillm_lab.benchmark.machine import cpu_model
from minillm_lab.jobs.command import run, say
from minillm_lab.jobs.errors import LabError
from minillm_lab.jobs.files import read_text
from minillm_lab.models.quantize import quantize
from minillm_lab.quality.text import EvaluationText
from minillm_lab.records import Score, read_record
from minillm_lab.runtimes import resolved

CONTEXT = 512
PROTOCOLS = {  # where a chunk's scored tokens begin
    "llama-perplexity": {"name": "llama-perplexity", "context": CONTEXT, "score_from": 256},
    "lab": {"name": "lab", "context": CONTEXT, "score_from": 32},
}
LINES = {  # the lab's name: llama-perplexity's, the factor between their units, decimals
    "kld_mean": ("Mean    KLD", 1, 5),
    "kld_p99": ("99.0%   KLD", 1, 4),
    "kld_p999": ("99.9%   KLD", 1, 4),
    "kld_max": ("Maximum KLD", 1, 4),
    "same_top": ("Same top p", 100, 2),
    "perplexity": ("Mean PPL(Q)", 1, 3),
    "perplexity_ratio": ("Mean PPL(Q)/PPL(base)", 1, 5),
    "delta_p_mean": ("Mean    Δp", 100, 3),
    "delta_p_rms": ("RMS Δp", 100, 3),
    "delta_p_p01": (" 1.0%   Δp", 100, 3),
    "delta_p_p99": ("99.0%   Δp", 100, 3),
}
CELLS = (  # the tables' columns
    ("kld_mean", "kld_p99", "same_top", "perplexity", "perplexity_ratio"),
    ("kld_p999", "kld_max", "delta_p_mean", "delta_p_rms", "delta_p_p01", "delta_p_p99"),
)


@dataclass
class Scored:
    """A file's figures in llama-perplexity's units, and the seconds that the command took."""

    figures: dict[str, float]
    seconds: float


class Lab:
    """The lab's own modules, on one text under one protocol, in a folder of their files."""

    def __init__(
        self, folder: Path, text: Path, tokenizer: Path, protocol: str, settings: str,
        chunks: int | None = None,
    ) -> None:  # fmt: skip
        self.folder, self.protocol, self.settings = folder / f"lab-{protocol}", protocol, settings
        self.text = self.folder / "text.json"
        self.folder.mkdir()
        how = json.dumps(PROTOCOLS[protocol] | {"chunks": chunks})
        self.run("text", "--tokenizer", tokenizer, "--text", text, "--protocol", how,
                 "--output", self.text)  # fmt: skip

    def run(self, module: str, *arguments: str | Path) -> float:
        """Run a module of the quality room as the workflow does; its wall time in seconds."""
        start = time.perf_counter()
        output_of([sys.executable, "-m", f"minillm_lab.quality.{module}", *arguments])
        return time.perf_counter() - start

    def reference(self, weights: Path, kind: str) -> Path:
        """A reference, exact or compact."""
        output = self.folder / f"{kind}.npz"
        self.run("reference", "--model", "m", "--weights", weights, "--text", self.text,
                 "--settings", self.settings, "--output", output,
                 *(["--exact"] if kind == "exact" else []))  # fmt: skip
        return output

    def score(self, weights: Path, reference: Path, kv_cache: str = "f16") -> Scored:
        """Score a file against a reference."""
        settings = json.dumps(json.loads(self.settings) | {"kv_cache": kv_cache})
        output = self.folder / "score.json"
        seconds = self.run(
            "score", "--variant", "v", "--model", "m", "--weights", weights,
            "--text", self.text, "--reference", reference, "--settings", settings,
            "--output", output,
        )  # fmt: skip
        found = read_record(output, Score).metrics
        units = {name: factor for name, (_, factor, _) in LINES.items()}
        values = {name: found[name].value for name in units}
        return Scored({n: units[n] * v for n, v in values.items() if v is not None}, seconds)


class LlamaPerplexity:
    """llama-perplexity on one text; ``base`` is the file that it keeps of the reference."""

    def __init__(
        self, binary: str, folder: Path, text: Path, threads: int, reference: Path,
        chunks: int = -1,  # all
    ) -> None:  # fmt: skip
        self.base = folder / "base.kld"
        self.command: list[str | Path] = [
            binary, "-f", text, "-c", str(CONTEXT), "-t", str(threads), "-ngl", "0",
            "--kl-divergence-base", self.base, "--chunks", str(chunks),
        ]  # fmt: skip
        output_of([*self.command, "-m", reference])

    def score(self, weights: Path, kv_cache: str = "f16") -> tuple[Scored, dict[str, str]]:
        """Score a file; also each figure as printed, its own error with it."""
        start = time.perf_counter()
        cached = [] if kv_cache == "f16" else ["-ctk", kv_cache, "-ctv", kv_cache, "-fa", "on"]
        said = "\n".join(output_of([*self.command, "-m", weights, "--kl-divergence", *cached]))
        seconds = time.perf_counter() - start
        values, printed = {}, {}
        for name, (line, _, digits) in LINES.items():
            number = r"(-?[\d.]+)"
            pattern = rf"^{re.escape(line)}\s*:\s*{number}%?(?:\s*±\s*{number})?"
            if (found := re.search(pattern, said, re.M)) is None:
                raise LabError(f"llama-perplexity printed no {line.strip()!r}")
            values[name] = float(found[1])
            printed[name] = " ± ".join(f"{float(v):.{digits}f}" for v in found.groups() if v)
        return Scored(values, seconds), printed


def row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def main(arguments: argparse.Namespace) -> None:
    plan, binary = default_plan(), program(arguments.llama_perplexity)
    files = {path.stem: path for path in weights_of(plan, GGUF).values()}
    settings, f16 = plan.runtime_settings("f16"), files.pop("F16")
    threads = resolved(json.loads(settings)).threads
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        text = folder / "text.txt"
        own = read_text(ROOT / "workflow/minillm_lab/quality/text.txt")
        text.write_text(own[: arguments.characters])
        for type_ in arguments.types:
            files[type_] = folder / f"{type_}.gguf"
            quantize(f16, type_, files[type_])
        say("making the references")
        peer = LlamaPerplexity(binary, folder, text, threads, f16)
        same = Lab(folder, text, f16, "llama-perplexity", settings)
        exact, compact = (same.reference(f16, kind) for kind in ("exact", "compact"))
        evaluated = read_record(same.text, EvaluationText)
        tokens = len(evaluated.chunks) * evaluated.protocol.scored
        tables = [[row("", *names)] for names in CELLS]
        tables[0][0] += " kld_mean, compact |"
        times = [row("seconds", "llama-perplexity", "lab, exact reference", "compact")]
        runs = [(type_, weights, "f16") for type_, weights in files.items()]
        runs += [(f"F16, cache {kv}", f16, kv) for kv in arguments.kv_cache]
        for type_, weights, kv in runs:
            say(f"scoring {type_}")
            ours, (theirs, printed) = same.score(weights, exact, kv), peer.score(weights, kv)
            less = same.score(weights, compact, kv)
            for rows, names in zip(tables, CELLS, strict=True):
                cells = [f"{ours.figures[n]:.{LINES[n][2]}f} ({printed[n]})" for n in names]
                rows.append(row(type_, *cells))
            change = less.figures["kld_mean"] / ours.figures["kld_mean"] - 1
            tables[0][-1] += f" {less.figures['kld_mean']:.5f} ({change:+.2%}) |"
            times.append(row(type_, *(f"{of.seconds:.1f}" for of in (theirs, ours, less))))
        itself = same.score(f16, exact).figures
        sizes = peer.base.stat().st_size, compact.stat().st_size
    print(f"{cpu_model()}, {threads} threads; {tokens} scored tokens. Lab (llama-perplexity):")
    for rows in (*tables, times):
        print("", rows[0], "|---" * (rows[0].count("|") - 1) + "|", *rows[1:], sep="\n")
    print(f"\nF16 to itself: {itself['kld_mean']:.1e} nats, same top {itself['same_top']:.1f} %")
    for tool, size in zip(("llama-perplexity", "the lab, compact"), sizes, strict=True):
        print(f"reference of {tool}: {size / 1e6:.1f} MB, {size / tokens / 1e3:.1f} kB a token")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--llama-perplexity", required=True, help="the program to run")
    parser.add_argument("--types", nargs="*", default=["Q2_K"], help="besides the default's files")
    parser.add_argument(
        "--kv-cache", nargs="*", default=["q8_0", "q4_0"], help="types of caches, with F16 weights"
    )
    parser.add_argument("--characters", type=int, default=40_000, help="of the lab's text")
    parser.add_argument("--folder", type=Path, help="for 3 GB of temporary files")
    run(main, parser)
