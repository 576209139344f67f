"""``minillm-lab``: write an experiment, choose a variant, estimate, compare two runs, export."""

import argparse
import os
import sys
from importlib import import_module

from minillm_lab import __version__
from minillm_lab.jobs.command import run

COMMANDS = ("new", "pick", "estimate", "diff", "export")


def command_line(asked: str | None = None) -> argparse.ArgumentParser:
    """The commands with their arguments, and examples of each.

    Only the one that is asked for is imported; all take a second longer.
    """
    parser = argparse.ArgumentParser(prog="minillm-lab", description=main.__doc__)
    parser.add_argument("--version", action="version", version=f"minillm-lab {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name in [name for name in COMMANDS if name == asked] or COMMANDS:
        module = import_module(f"minillm_lab.commands.{name}")
        about = (module.__doc__ or "").partition("\n\n")[0]
        command = commands.add_parser(
            name,
            help=about.partition("\n")[0],
            description=about,
            epilog="\n".join(["examples:", *(f"  {line}" for line in module.EXAMPLES)]),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
        command.set_defaults(main=module.main)
    return parser


def main() -> None:
    """Write an experiment, or read the results of one; this program runs no model itself."""
    parser = command_line(*sys.argv[1:2])
    sys.stdout.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]
    try:
        run(lambda arguments: arguments.main(arguments), parser)
        sys.stdout.flush()
    except BrokenPipeError:  # `minillm-lab … | head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
