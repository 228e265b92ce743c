"""Each crash point stands in one place, and some test has a process die there (or fails where it is not reached)."""

import ast
from collections import Counter
from pathlib import Path

import batch_assets
from batch_assets import crash_points

PACKAGE, TESTS = Path(batch_assets.__file__).parent, Path(__file__).parent


def test_each_is_in_one_place_and_in_a_test() -> None:
    points = Counter(
        node.args[0].value
        for file in PACKAGE.rglob("*.py")
        if file.name != Path(crash_points.__file__).name
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == crash_points.crash_point.__name__
        and isinstance(node.args[0], ast.Constant)
    )
    assert [point for point, places in points.items() if places > 1] == []
    named = {
        node.value
        for file in TESTS.rglob("test_*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant)
    }
    assert set(points) - named == set()
    assert points, "found none: this test looks in the wrong place"
