"""``minillm-lab``: choose a variant, estimate a time, compare two runs, export results."""

import argparse
import os
import sys

from minillm_lab import __version__
from minillm_lab.commands import diff, estimate, export, pick
from minillm_lab.jobs.command import run

COMMANDS = {"pick": pick, "estimate": estimate, "diff": diff, "export": export}


def main() -> None:
    """Read the results that the workflow made; this program measures nothing itself."""
    parser = argparse.ArgumentParser(prog="minillm-lab", description=main.__doc__)
    parser.add_argument("--version", action="version", version=f"minillm-lab {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, module in COMMANDS.items():
        about = (module.__doc__ or "").partition("\n\n")[0]
        command = commands.add_parser(name, help=about.partition("\n")[0], description=about)
        module.add_arguments(command)
        command.set_defaults(main=module.main)
    sys.stdout.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]
    try:
        run(lambda arguments: arguments.main(arguments), parser)
        sys.stdout.flush()
    except BrokenPipeError:  # `minillm-lab … | head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
