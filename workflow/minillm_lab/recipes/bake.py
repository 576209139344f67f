"""Make the file of a recipe."""

import argparse
from pathlib import Path

from minillm_lab.jobs.command import run, say
from minillm_lab.jobs.files import check_space
from minillm_lab.models.quantize import Quantizer
from minillm_lab.recipe import Recipe, told
from minillm_lab.records import read_record


def main(arguments: argparse.Namespace) -> None:
    recipe = read_record(arguments.recipe, Recipe)
    header = told(recipe.tensors, recipe.lab)
    quantizer = Quantizer(arguments.source, recipe.type, arguments.imatrix, recipe.tensors, header)
    size = quantizer.size(quantizer.types())
    check_space(arguments.output, size)
    say(f"making a recipe of {len(recipe.tensors)} patterns: {arguments.output}, {size:,} bytes")
    quantizer.write(arguments.output)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, required=True, help="the unquantized GGUF")
    parser.add_argument("--imatrix", type=Path, nargs="?", help="an importance matrix, as GGUF")
    parser.add_argument("--recipe", type=Path, required=True, help="the recipe's file")
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)
