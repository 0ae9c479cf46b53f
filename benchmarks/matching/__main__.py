"""Measure how well and how fast people who are registered twice are found: `python -m benchmarks.matching quality`.

The other commands are `scan`, `creations`, `febrl`, `families` and `lookalikes` (see benchmarks/README.md).
"""

import argparse
import sys
from functools import partial
from pathlib import Path

from benchmarks import command
from benchmarks.database import DATA_DIRECTORY
from benchmarks.matching import families, febrl, lookalikes, registers

COMMANDS = {
    "quality": registers.run_quality,
    "scan": registers.run_scan,
    "creations": registers.run_creations,
    "febrl": febrl.run,
    "families": families.run,
    "lookalikes": lookalikes.run,
}


def main() -> int:
    """Run the command of the command line and return 0, or 1 if it failed."""
    arguments = _parse_arguments()
    return command.run(partial(COMMANDS[arguments.command], arguments))


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.matching", description=__doc__.partition(":")[0] + ".")
    commands = parser.add_subparsers(dest="command", required=True)
    quality = commands.add_parser("quality", help="who is found in a register, with which grade, and how fast")
    quality.add_argument("--count", type=int, metavar="N", default=2000, help="registrations of each kind (2,000)")
    scan = commands.add_parser("scan", help="how long a scan of a register takes")
    creations = commands.add_parser("creations", help="the CPU time of a creation, with and without the check")
    creations.add_argument("--count", type=int, metavar="N", default=500, help="creations in each round (500)")
    creations.add_argument("--rounds", type=int, metavar="N", default=5, help="rounds of each side (5)")
    creations.add_argument("--logs", type=Path, metavar="DIRECTORY", default=DATA_DIRECTORY, help="for the sides' logs")
    for register in (quality, scan, creations):
        register.add_argument("--patients", type=int, metavar="N", default=100_000, help="in the register (100,000)")
    sets = commands.add_parser("febrl", help="how many pairs of a public set a scan finds")
    sets.add_argument("set", type=Path, metavar="FILE", help="febrl1.csv or febrl3.csv of the Febrl project")
    sets.add_argument("--identifiers", action="store_true", help="with the column soc_sec_id")
    registers_of_families = commands.add_parser("families", help="whom a scan of families takes for one person")
    registers_of_families.add_argument("--households", type=int, metavar="N", default=2200, help="in each (2,200)")
    registers_of_families.add_argument("--seeds", type=int, nargs="+", metavar="N", default=[2, 3], help="(2 and 3)")
    alike = commands.add_parser("lookalikes", help="whom a scan of people who look alike takes for one person")
    alike.add_argument("--groups", type=int, metavar="N", default=3000, help="of persons in each register (3,000)")
    alike.add_argument("--seeds", type=int, nargs="+", metavar="N", default=[1, 2, 3], help="(1, 2 and 3)")
    alike.add_argument("--identifiers", action="store_true", help="more than half of the persons have one")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
