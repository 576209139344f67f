"""Whether what a search measured is worth it: recipes against other assignments of one size.

    python benchmarks/recipes.py --weights F16.gguf --sensitivity FILE --size-of Q4_K_M.gguf

Of one size: the recipe, one chosen by the error of weights alone, and three by random weights of
the groups. Of sizes over the whole range: twenty by random weights, whose predicted and measured
losses are compared. All are scored on the lab's evaluation text, which no search sees.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr
from tabulate import tabulate

from lab import ROOT
from minillm_lab.jobs.command import progress, run
from minillm_lab.quality.intervals import ratio
from minillm_lab.recipes.candidates import Baker
from minillm_lab.recipes.sensitivity import Text
from minillm_lab.recipes.shapes import GroupLoss, Sensitivity
from minillm_lab.recipes.solver import assigned
from minillm_lab.records import read_record

SIZES = 20
CHUNKS = 10


def random_losses(groups: list[GroupLoss], random: np.random.Generator) -> list[GroupLoss]:
    """Losses as if each group mattered as much as chance has it, by its error and its weights."""
    return [
        weighed(group, float(np.exp(random.normal(0, 2))) * group.weights / worst(group))
        for group in groups
    ]


def worst(group: GroupLoss) -> float:
    return max(choice.error for choice in group.types.values())


def weighed(group: GroupLoss, factor: float) -> GroupLoss:
    """A group whose losses are its errors times a factor."""
    types = {
        t: choice.model_copy(update={"loss": factor * choice.error})
        for t, choice in group.types.items()
    }
    return group.model_copy(update={"types": types})


def main(given: argparse.Namespace) -> None:
    found, random = read_record(given.sensitivity, Sensitivity), np.random.default_rng(1)
    groups, baker = found.groups, Baker(given.weights, given.imatrix, found)
    evaluation = (ROOT / "workflow/minillm_lab/quality/text.txt").read_text()
    text = Text(given.weights, evaluation, "auto", CHUNKS)
    smallest, largest = (
        baker.quantizer([by(g.types, key=lambda t: g.types[t].bytes) for g in groups])
        for by in (min, max)
    )
    low, high = (quantizer.size(quantizer.types()) for quantizer in (smallest, largest))
    room = baker.room(given.size_of.stat().st_size)
    asked = {"recipe": assigned(groups, room)}
    asked["by error of weights"] = assigned([weighed(g, 1.0) for g in groups], room)
    for i in range(3):
        asked[f"random {i + 1}"] = assigned(random_losses(groups, random), room)
    for i, share in enumerate(np.linspace(0.05, 0.95, SIZES)):
        size = int(low + share * (high - low))
        asked[f"size {i + 1}"] = assigned(random_losses(groups, random), baker.room(size))
    losses, bytes_ = {"stock": text.losses(given.size_of)}, {"stock": given.size_of.stat().st_size}
    with tempfile.TemporaryDirectory() as folder, progress("files", len(asked), "files") as advance:
        for name, types in asked.items():
            file = Path(folder) / "file.gguf"
            quantizer = baker.quantizer(types)
            quantizer.types()
            quantizer.write(file)
            losses[name], bytes_[name] = text.losses(file), file.stat().st_size
            advance(1, name)
    predicted = {
        name: sum(g.types[t].loss for g, t in zip(groups, types, strict=True))
        for name, types in asked.items()
    }
    rows = []
    for name, of_chunk in losses.items():
        over = ratio("1", np.array(losses["recipe"])[:, None], np.array(of_chunk)[:, None])
        low95, high95 = over.ci95 or (np.nan, np.nan)
        rows.append([
            name, f"{bytes_[name]:,}", f"{np.mean(of_chunk):.4f}",
            f"{predicted[name]:.4f}" if name in predicted else "",
            f"{over.value:.2f} ({low95:.2f} to {high95:.2f})",
        ])  # fmt: skip
    print(tabulate(rows, headers=["", "bytes", "measured", "predicted", "recipe over it"]))
    sized = [name for name in asked if name.startswith("size")]
    pairs = [([predicted[n] for n in sized], [np.mean(losses[n]) for n in sized])]
    print(f"rank correlation of predicted and measured over {SIZES}: {spearmanr(*pairs[0])[0]:.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, required=True, help="the unquantized GGUF")
    parser.add_argument("--imatrix", type=Path, help="the importance matrix of the search")
    parser.add_argument("--sensitivity", type=Path, required=True, help="the search's file")
    parser.add_argument("--size-of", type=Path, required=True, help="a stock GGUF")
    run(main, parser)
