"""What a plan says that it will cost, and what it does cost: small shards are called record by record."""

from collections.abc import Callable
from pathlib import Path

import pytest

from batch_assets.control.estimate import called_singly, estimate
from batch_assets.control.preview import preview_plan
from batch_assets.control.status import read_status
from batch_assets.storage import open_storage
from batch_assets_tests.command import some_records, write_records
from batch_assets_tests.rehearsed import Rehearsal
from batch_assets_tests.sites import PER_SHARD, Site, make_site

Rehearse = Callable[..., Rehearsal]
FOLDERS, IN_FOLDER = 10, 4


def site_of_small_folders(rehearsal: Rehearsal, folder: Path, merge_by: str | None, **executor: str) -> Site:
    """Forty records in ten folders, where a job takes at least five."""
    for number in range(FOLDERS):
        records = some_records(FOLDERS * IN_FOLDER)[number * IN_FOLDER :][:IN_FOLDER]
        write_records(folder / "in" / f"hour={number}" / "part.jsonl", records)
    source = {"uri": f"{folder}/in", "id_column": "id"}
    return make_site(rehearsal, folder, source=source, merge_by=merge_by, executor=executor)


@pytest.mark.parametrize(
    ("merge_by", "remainder", "shards", "single"),
    [
        (None, "on_demand", 4, 0),
        ("folder", "on_demand", FOLDERS, FOLDERS * IN_FOLDER),
        ("folder", "pool", FOLDERS, 0),
    ],
)
def test_the_estimate_knows_what_is_called_one_by_one(
    rehearse: Rehearse, tmp_path: Path, merge_by: str | None, remainder: str, shards: int, single: int
) -> None:
    assert FOLDERS * IN_FOLDER // PER_SHARD == 3
    rehearsal = rehearse(quotas={"min_records": 5})
    site = site_of_small_folders(rehearsal, tmp_path, merge_by, remainder=remainder)
    executor = site.account.executor(site.settings)
    preview = preview_plan(site.settings, executor, site.ledger, open_storage(str(tmp_path / "spool")))
    found = estimate(site.settings, executor, preview.shards, preview.sample, None)
    assert (len(preview.shards), called_singly(executor, preview.shards)) == (shards, single)
    assert found.usd is not None and found.usd_on_demand is not None
    expected = found.usd_on_demand if single else found.usd_on_demand / 2  # a batch costs half
    assert found.usd == pytest.approx(expected, rel=0.01, abs=1e-6)

    site.upload()
    status = read_status(site.settings, site.ledger)
    assert status.expected_usd == pytest.approx(found.usd, rel=0.5, abs=1e-6)
    site.run()
    calls = sum(job.times for job in rehearsal.server.books.processed.values())
    assert calls == FOLDERS * IN_FOLDER
    assert bool(rehearsal.jobs) is not bool(single)
