"""What is decided about attempts, for any number: they end, and what is forgiven is bounded and never counts."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from batch_assets.retry_policy import (
    DEATHS_FORGIVEN,
    FREE_CUTS,
    LONGEST_COLLECTION_PAUSE_SECONDS,
    LONGEST_REJECTED_PAUSE_SECONDS,
    LOSSES_FORGIVEN,
    Cause,
    JobEnd,
    after_collection,
    after_deaths,
    after_failure,
    after_job,
    is_free_cut,
    is_refused_alone,
    pause_after_rejection,
)

MOST = st.integers(1, 20)
CAUSES = st.lists(st.sampled_from(list(Cause)), min_size=40, max_size=80)


@given(MOST, CAUSES)
def test_no_more_attempts_count_than_there_are_and_forgiveness_ends(
    most: int, causes: Sequence[Cause]
) -> None:
    counted = forgiven = lost = 0
    for cause in causes:
        decided = after_failure(counted + 1, most, cause, lost)
        lost += cause is Cause.MACHINE_LOST
        counted += decided.counts
        forgiven += decided.again and not decided.counts
        if not decided.again:
            assert decided.counts, "nothing is given up for what is forgiven"
            break
    else:
        raise AssertionError("it was tried for ever")
    assert counted <= most
    assert forgiven <= LOSSES_FORGIVEN


@given(MOST)
def test_a_job_that_leaves_records_counts_and_one_that_is_stopped_or_comes_closer_does_not(most: int) -> None:
    decided = [after_job(attempt, most, JobEnd.LEFT) for attempt in range(1, most + 1)]
    assert all(one.counts for one in decided)
    assert [one.again for one in decided] == [True] * (most - 1) + [False]
    for end in (JobEnd.STOPPED, JobEnd.NARROWED, JobEnd.OUTDATED):
        spent = after_job(most, most, end)
        assert spent.again
        assert not spent.counts


@given(MOST)
def test_collecting_costs_no_attempt_pauses_ever_longer_and_is_given_up_as_soon(most: int) -> None:
    decided = [after_collection(failures, most) for failures in range(most)]
    assert not any(one.counts for one in decided)
    assert [one.again for one in decided] == [True] * (most - 1) + [False]
    pauses = [one.pause for one in decided[:-1]]
    assert pauses == sorted(pauses)
    assert all(0 < pause <= LONGEST_COLLECTION_PAUSE_SECONDS for pause in pauses)


@given(MOST)
def test_so_many_killed_processes_are_forgiven_and_not_one_more(most: int) -> None:
    assert after_deaths(most + DEATHS_FORGIVEN, most).again
    assert not after_deaths(most + DEATHS_FORGIVEN + 1, most).again


@given(st.integers(0, 10_000), st.floats(0.01, 3600))
def test_a_service_that_rejects_for_ever_is_asked_every_few_minutes(rejections: int, poll: float) -> None:
    pause = pause_after_rejection(rejections, poll)
    assert 0 < pause <= LONGEST_REJECTED_PAUSE_SECONDS
    assert pause <= pause_after_rejection(rejections + 1, poll)


def test_what_cannot_be_read_is_given_up_at_once_and_says_why() -> None:
    decided = after_failure(1, 5, Cause.SOURCE)
    assert not decided.again
    assert "mend the source, then retry" in decided.reason


def test_a_record_is_blamed_alone_and_cuts_are_free_so_often() -> None:
    assert is_refused_alone(1, 3, 3)
    assert not is_refused_alone(2, 3, 3)
    assert not is_refused_alone(1, 2, 3)
    assert is_free_cut(True, FREE_CUTS - 1)
    assert not is_free_cut(True, FREE_CUTS)
    assert not is_free_cut(False, 0)
