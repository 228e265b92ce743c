"""Each crash point stands in one place, and some test has a process die there (or fails where it is not reached)."""

import re
from collections import Counter
from pathlib import Path

import batch_assets
from batch_assets import crash_points

PACKAGE, TESTS = Path(batch_assets.__file__).parent, Path(__file__).parent
CALL = re.compile(rf'\b{crash_points.crash_point.__name__}\("([^"]+)"\)')


def test_each_is_in_one_place_and_in_a_test() -> None:
    points = Counter(point for file in PACKAGE.rglob("*.py") for point in CALL.findall(file.read_text()))
    assert [point for point, places in points.items() if places > 1] == []
    tests = "".join(file.read_text() for file in TESTS.rglob("test_*.py"))
    assert [point for point in points if f'"{point}"' not in tests] == []
    assert points, "found none: this test looks in the wrong place"
