"""What is one event and what are two, and that each says what to do."""

import pytest

from batch_assets.notifications import events
from batch_assets.notifications.base import Notification


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, to be set; in seconds."""
    now = [1_000_000 * 3600.0]
    monkeypatch.setattr(events.time, "time", lambda: now[0])
    return now


def run(run_id: str, reason: str = "It broke.", family: str | None = None, **more: str) -> Notification:
    return events.run_failed(["texts"], run_id, reason, family=family or run_id, **more)


def test_a_job_is_one_event_and_the_next_attempt_another() -> None:
    one = events.job_failed("texts", ["g0001-00042"], "ba-texts-7", "Expired. Nothing ran.", 2)
    assert one.key == events.job_failed("texts", ["g0001-00042"], "ba-texts-7", "Failed.", 2).key
    assert one.key != events.job_failed("texts", ["g0001-00042"], "ba-texts-8", "Expired.", 1).key
    assert one.happened == "Job ba-texts-7: Expired."
    assert "2 times at most" in one.meaning
    assert (one.severity, one.command) == ("warning", "batch-assets status texts")


def test_a_job_without_attempts_left_is_for_a_person_to_mend() -> None:
    last = events.job_failed("texts", ["g0001-00042"], "ba-texts-9", "Expired", 0)
    assert last.severity == "error"
    assert last.command == "batch-assets retry texts g0001-00042 && batch-assets run texts"


def test_an_array_is_one_event_that_names_a_few_of_its_shards() -> None:
    shards = [f"g0001-{number:05d}" for number in range(10_000)]
    told = events.job_failed("texts", shards, "ba-texts-9", "Host EC2 terminated", 0)
    assert told.title == "texts: a job of 10,000 shards failed"
    assert told.happened.startswith("Job ba-texts-9 (g0001-00000 g0001-00001 ")
    assert told.command == "batch-assets retry texts && batch-assets run texts"
    assert len(told.text()) < 800


def test_what_was_published_is_told_once_for_each_version() -> None:
    counts = {
        "planned": 1_000,
        "embedded": 990,
        "rejected": 8,
        "failed": 2,
        "cost_usd": 1.5,
        "uri": "s3://b/merged",
    }
    told = events.published("texts", "v000001-0123abcd", **counts)
    assert "990 of 1,000 records are embedded, 8 rejected, 2 failed, for 1.50 USD" in told.happened
    assert "Why 10 records are not in it" in told.meaning
    assert told.key != events.published("texts", "v000002-0123abcd", **counts).key


def test_blocked_publishing_is_told_again_once_something_has_changed() -> None:
    keys = [events.publishing_blocked("texts", revision, "30 of 100 failed.").key for revision in (7, 7, 8)]
    assert keys[0] == keys[1] != keys[2]


def test_a_budget_is_told_once_for_each_amount() -> None:
    keys = [
        events.budget_reached("texts", budget, f"spent {spent}").key
        for budget, spent in [(10.0, 1), (10.0, 9), (20.0, 9)]
    ]
    assert keys[0] == keys[1] != keys[2]


def test_the_same_reason_is_told_again_after_an_hour(clock: list[float]) -> None:
    event = events.submission_refused
    first = event("texts", "Role x cannot be passed (request 0b1c-77)")
    clock[0] += 3599
    assert event("texts", "Role x cannot be passed (request 4d9a-12)").key == first.key
    assert event("images", "Role x cannot be passed").key != first.key
    assert event("texts", "The bucket is in another region").key != first.key
    clock[0] += 1
    assert event("texts", "Role x cannot be passed (request 0b1c-77)").key != first.key


def test_runs_by_hand_are_events_of_their_own_and_re_executions_are_not() -> None:
    assert run("a").key != run("b").key
    assert run("b", family="a").key == run("a").key == events.family_key("a")
    assert run("a", "First sentence. Second.").happened == "/runs/a: First sentence."
    assert run("a").command == "batch-assets run texts"


def test_runs_of_a_backfill_are_one_event() -> None:
    assert run("a", "one", backfill="x").key == run("b", "another", backfill="x").key
    assert run("a", backfill="x").key != run("a", backfill="y").key


def test_runs_of_a_sensor_are_one_event_for_an_error_and_an_hour(clock: list[float]) -> None:
    first = run("a", "shard g0001-00001: no space left on device", started_by="new_input")
    assert run("b", "shard g0002-00317: no space left on device", started_by="new_input").key == first.key
    assert run("b", "the model is missing", started_by="new_input").key != first.key
    clock[0] += 3600
    assert run("c", "shard g0001-00001: no space left on device", started_by="new_input").key != first.key


@pytest.mark.parametrize(
    ("message", "short"),
    [
        ("One thing. Another", "One thing."),
        ("see v1.2 of a.b, e.g. this", "see v1.2 of a.b, e.g. this"),
        ("\n  first line\nsecond", "first line"),
        ("", "no reason was given"),
        ("x" * 501, "x" * 499 + "…"),
        ("lone \ud800 surrogate", "lone ? surrogate"),
    ],
)
def test_reasons_are_short(message: str, short: str) -> None:
    assert events.shorten(message) == short


def test_what_a_service_says_is_told_on_one_line_without_control_characters() -> None:
    told = events.submission_refused("texts", "in/\x1b]0;owned\x07\u202e.jsonl is refused")
    assert told.happened == r"in/\x1b]0;owned\x07\u202e.jsonl is refused"
    assert len(told.text().splitlines()) == 4
