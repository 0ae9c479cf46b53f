"""Measure how patients are found: `python -m benchmarks.finding speed`, `quality` or `desk`.

See benchmarks/README.md.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

from benchmarks import command
from benchmarks.finding import desk, quality, speed

COMMANDS = {"speed": speed.run, "quality": quality.run, "desk": desk.run}


def main() -> int:
    """Run the command of the command line and return 0, or 1 if it failed."""
    arguments = _parse_arguments()
    return command.run(partial(COMMANDS[arguments.command], arguments))


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.finding", description=__doc__.partition(":")[0] + ".")
    commands = parser.add_subparsers(dest="command", required=True)
    speed_parser = commands.add_parser("speed", help="how long responses take, in registers of several sizes")
    speed_parser.add_argument("--sizes", type=int, nargs="+", metavar="N", default=[10_000, 100_000, 1_000_000])
    speed_parser.add_argument("--queries", type=int, metavar="N", default=200, help="per kind and register (200)")
    speed_parser.add_argument("--kinds", nargs="+", metavar="KIND", help="name prefixes: page, 'search full', …")
    speed_parser.add_argument("--json", type=Path, metavar="FILE", help="write every request's time to this file")
    quality_parser = commands.add_parser("quality", help="whether the expected patient ranks first")
    quality_parser.add_argument("--patients", type=int, metavar="N", default=100_000, help="in the register (100,000)")
    quality_parser.add_argument("--queries", type=int, metavar="N", default=1000, help="per kind (1,000)")
    quality_parser.add_argument(
        "--kinds", nargs="+", choices=quality.QUERY_KINDS, metavar="KIND", help=f"of: {', '.join(quality.QUERY_KINDS)}"
    )
    quality_parser.add_argument("--json", type=Path, metavar="FILE", help="write the shares to this file")
    quality_parser.add_argument(
        "--misses", type=Path, metavar="FILE", help="write the missed queries to this file as JSON lines"
    )
    desk_parser = commands.add_parser("desk", help="whether patients are found as staff describe them")
    desk_parser.add_argument("--patients", type=int, metavar="N", default=100_000, help="in the register (100,000)")
    desk_parser.add_argument("--queries", type=int, metavar="N", default=100, help="per kind (100)")
    desk_parser.add_argument("--kinds", nargs="+", metavar="KIND", help="beginnings of the kinds' names")
    desk_parser.add_argument(
        "--misses", type=Path, metavar="FILE", help="write the descriptions that are not met to this file as JSON lines"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
