"""One queue for a whole deployment: each event finds the pipeline whose job it is of, whatever its service is."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from batch_assets.control.loop import take_turn
from batch_assets.control.pipeline import Pipeline
from batch_assets_tests.rehearsed import Rehearsal
from batch_assets_tests.sites import Site, assert_whole, make_site
from batch_assets_tests.transforming import make_transform_site
from batch_assets_tests.waiting import wait_until
from batch_assets_tests.workers import make_worker_site

Rehearse = Callable[..., Rehearsal]
LISTS = ("ListModelInvocationJobs", "ListTransformJobs")


def quick_queue(rehearsal: Rehearsal) -> str:
    """A queue that gives a message that was left in it out again after a second."""
    queue = rehearsal.queue()
    rehearsal.client("sqs").set_queue_attributes(QueueUrl=queue, Attributes={"VisibilityTimeout": "1"})
    return queue


def test_ends_of_all_services_are_found_without_polling(rehearse: Rehearse, tmp_path: Path) -> None:
    rehearsal = rehearse()
    executor: dict[str, Any] = {"queue_url": quick_queue(rehearsal), "poll_seconds": 3600}
    sites: list[Site] = []
    for make, name in (
        (make_site, "bedrock"),
        (make_transform_site, "sagemaker"),
        (make_worker_site, "batch"),
    ):
        (tmp_path / name).mkdir()
        sites.append(make(rehearsal, tmp_path / name, 2, name=name, executor=dict(executor)))
    for site in sites[1:]:
        site.ledger, site.clock = sites[0].ledger, sites[0].clock
    pipelines = [site.upload() for site in sites]
    listed = [rehearsal.calls(name) for name in LISTS]

    def all_done() -> bool:
        take_turn(pipelines)
        for site, pipeline in zip(sites, pipelines, strict=True):
            site.collect(pipeline)
        return all(site.done() for site in sites)

    wait_until(all_done, lambda: [site.states() for site in sites])
    assert [rehearsal.calls(name) for name in LISTS] == listed
    assert [site.states() for site in sites] == [["collected"] * 2] * 3


def bring_to_its_end(site: Site, pipeline: Pipeline) -> None:
    """Turns of the control loop with this pipeline alone, until all of it is collected."""

    def done() -> bool:
        take_turn([pipeline])
        site.collect(pipeline)
        return site.done()

    wait_until(done, site.states)


def test_an_event_of_a_pipeline_that_is_not_at_hand_is_left_to_who_has_it(
    rehearse: Rehearse, tmp_path: Path
) -> None:
    rehearsal = rehearse()
    executor = {"queue_url": quick_queue(rehearsal), "poll_seconds": 3600}
    (tmp_path / "other").mkdir()
    ours = make_site(rehearsal, tmp_path, 1, executor=dict(executor))
    other = make_transform_site(rehearsal, tmp_path / "other", 1, name="other", executor=dict(executor))
    other.ledger, other.clock = ours.ledger, ours.clock
    pipelines = [ours.upload(), other.upload()]
    bring_to_its_end(ours, pipelines[0])
    listed = rehearsal.calls("ListTransformJobs")
    bring_to_its_end(other, pipelines[1])
    assert rehearsal.calls("ListTransformJobs") == listed
    assert_whole(other, 1)
