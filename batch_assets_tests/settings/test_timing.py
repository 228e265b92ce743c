"""When pipelines start and are merged, as people write it: what may be written, and what is said of the rest."""

import warnings
from typing import Any

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_assets.errors import ConfigurationError
from batch_assets.settings.pipeline import parse_pipeline

BASE = {"source": {"uri": "in"}, "output": {"root": "out"}}
LIMITS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))


def written(**fields: Any) -> Any:
    return parse_pipeline({**BASE, **fields}, "texts", "a test")


@pytest.mark.parametrize(
    "schedule",
    ["hour", "5/10 * * * *", "0 9-17/2 1,15 jan-mar mon-fri", "0 0 29 2 *", "0 0 31 4 1", "0 0 31 2,5 *"],
)
def test_schedules_that_may_be(schedule: str) -> None:
    assert written(schedule=f" {schedule} ", retention={"schedule": schedule}).schedule == schedule


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ("0 0 31 2 *", r"schedule: '0 0 31 2 \*' cannot be used: the months '2' have no day '31'"),
        ("0 0 31 apr,6 *", "the months 'apr,6' have no day '31', so it would never come"),
        ("*/90 * * * *", r"its minute, '\*/90', is none: .*a step n must fit into what it divides"),
        ("0 22-2 * * *", "its hour, '22-2', is none: .*ranges from the lower to the higher"),
        ("0 0 * * sat-sun", "its day of the week, 'sat-sun', is none: .*or sun to sat"),
        ("² * * * *", "its minute, '²', is none"),
        ("\u0663 * * * *", "its minute, '\u0663', is none"),
        ("0 0 * * */7", "its day of the week, '\\*/7', is none"),
        ("0 0 * *", "write one of minute, hour, day, week, month, year, or a cron expression of five fields"),
    ],
)
def test_schedules_that_never_come_or_say_something_else_are_refused(schedule: str, message: str) -> None:
    for fields in ({"schedule": schedule}, {"retention": {"schedule": schedule}}):
        with pytest.raises(ConfigurationError, match=message):
            written(**fields)


@st.composite
def expressions(draw: st.DrawFn) -> str:
    fields: list[str] = []
    for least, most in LIMITS:
        low, high = sorted(draw(st.tuples(*[st.integers(least - 1, most + 1)] * 2)))
        field = draw(st.sampled_from(["*", str(low), f"{low}-{high}", f"{low},{high}"]))
        step = draw(st.sampled_from(["", "", f"/{draw(st.integers(1, most + 1))}"]))
        fields.append(field + step)
    return " ".join(fields)


@given(expressions())
def test_dagster_takes_whatever_is_taken_here(expression: str) -> None:
    try:
        schedule = written(schedule=expression).schedule
    except ConfigurationError:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # that it would come at other times than written
        dg.ScheduleDefinition(name="one", target="*", cron_schedule=schedule)


@pytest.mark.parametrize("at", [1, 72060, 1.5, True, "noon", "2026-11-21", "2026-11-21T06:00:00"])
def test_what_is_no_time_to_merge_at(at: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"merge_when\.at: .* cannot be used: write"):
        written(merge_when={"at": at})
