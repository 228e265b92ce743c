"""The command line that benchmarks share: the three sizes in which each of them runs.

What a size means is each benchmark's own business: a `Counts` for each `Size`.
"""

import argparse
from enum import Enum


class Size(Enum):
    """How much a benchmark does."""

    FULL = "full"
    QUICK = "quick"
    SMALLEST = "smallest"

    @property
    def judged(self) -> bool:
        """Whether the figures mean anything, so that targets can be missed."""
        return self is not Size.SMALLEST


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser whose result has a `size`; a benchmark adds options of its own."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument(
        "--quick",
        dest="size",
        action="store_const",
        const=Size.QUICK,
        help="less data and fewer rounds: about a minute on two idle cores",
    )
    sizes.add_argument(
        "--smallest",
        dest="size",
        action="store_const",
        const=Size.SMALLEST,
        help="the least that shows that it runs: its figures mean nothing, and no target is judged",
    )
    parser.set_defaults(size=Size.FULL)
    return parser
