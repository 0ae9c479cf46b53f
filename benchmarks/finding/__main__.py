"""Measure how patients are found: `python -m benchmarks.finding speed` or `quality` (see benchmarks/README.md)."""

import argparse
import sys
from functools import partial
from pathlib import Path

from benchmarks import command
from benchmarks.finding import quality, speed

COMMANDS = {"speed": speed.run, "quality": quality.run}


def main() -> int:
    """Measure what the command line asks for; 0, or 1 where that cannot be done."""
    arguments = _arguments()
    return command.run(partial(COMMANDS[arguments.command], arguments))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.finding", description=__doc__.partition(":")[0] + ".")
    commands = parser.add_subparsers(dest="command", required=True)
    timed = commands.add_parser("speed", help="how long answers take, in registers of several sizes")
    timed.add_argument("--sizes", type=int, nargs="+", metavar="N", default=[10_000, 100_000, 1_000_000])
    timed.add_argument("--queries", type=int, metavar="N", default=200, help="of each kind in each register (200)")
    timed.add_argument("--kinds", nargs="+", metavar="KIND", help="beginnings of names: page, 'search full', …")
    timed.add_argument("--json", type=Path, metavar="FILE", help="write every request's time there")
    judged = commands.add_parser("quality", help="whether the patient who is looked for comes first")
    judged.add_argument("--patients", type=int, metavar="N", default=100_000, help="in the register (100,000)")
    judged.add_argument("--queries", type=int, metavar="N", default=1000, help="of each kind (1,000)")
    judged.add_argument(
        "--kinds", nargs="+", choices=quality.KINDS, metavar="KIND", help=f"of: {', '.join(quality.KINDS)}"
    )
    judged.add_argument("--json", type=Path, metavar="FILE", help="write the shares there")
    judged.add_argument(
        "--misses", type=Path, metavar="FILE", help="write there who was wanted and who came, as JSON lines"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
