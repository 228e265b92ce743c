"""Cleanup: what is left over goes when it is old enough; evidence, the published version and what runs need stays."""

import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from batch_assets.control.cleanup import find_leftovers, owned_pipeline, remove_leftovers
from batch_assets.control.collection import collect_shards
from batch_assets.control.pipeline import open_pipeline
from batch_assets.control.planning import plan_source
from batch_assets.control.preparation import prepare_shards, queue_shards
from batch_assets.control.retention import UNNAMED_SECONDS
from batch_assets.errors import ConfigurationError, NotReady
from batch_assets.executors.jobs import JobDescription, RequestFile, write_description
from batch_assets.ledger.states import State
from batch_assets.merge.publishing import current
from batch_assets.merge.verification import verify
from batch_assets.sources.spool_files import Spools
from batch_assets.storage import LocalStorage
from batch_assets_tests.command import published
from batch_assets_tests.control.builders import embed_all, make_settings, open_ledger
from batch_assets_tests.control.cleaned import DAY, LATER, Cleaned, counted

KEYS = ["g0001-00000", "g0001-00001", "g0001-00002"]


def job(key: str) -> list[str]:
    """The files of a shard's job, as the executors and services name them."""
    requests = f"{key}-1-0123abcd-00000.jsonl"
    names = (
        "job.json",
        f"requests-0123abcd/{requests}",
        f"results/a1b2c3d4e5f6/{requests}.out",
        f"results-0123abcd/{key}-1-00000.jsonl.out",
    )
    return [f"jobs/{key}/1/{name}" for name in names]


def describe_job(pipe: Cleaned, key: str, fence: int, requests: str) -> None:
    """Say that this is the file of a shard's job."""
    files = [RequestFile(requests, 1, 8, "sha")]
    described = JobDescription(
        "texts", key, fence, 1, "batch", "print", "digest", "staging", files, 1, 8, 0.0, ordinals=[(0, 0)]
    )
    write_description(pipe.open().storage, described)


def foreign(key: str, version: str) -> list[str]:
    """Files of somebody else, beside those of the pipeline and named much like them."""
    return [
        "spool/notes.parquet",
        "spool/0123456789abcdef.parquet",
        "spool/mine/0123456789abcdef.parquet",
        f"shards/{key}/notes.txt",
        f"shards/{key}/embeddings-1-draft.parquet",
        f"shards/{key}/embeddings-1-7.parquet",
        f"shards/{key}/attempts/9/rows.parquet",
        f"jobs/{key}/2/requests-0123abcd/{key}-2-0123abcd-00000.jsonl",
        f"shards/{key}/embeddings-1.parquet.bak",
        f"shards/{key}/attempts/1/rows.parquet.old",
        f"jobs/{key}/1/something",
        f"jobs/{key}/1/requests-0123abcd/mine.jsonl",
        f"jobs/{key}/1/results/readme.out",
        # Another deployment's, of the same shard and fence.
        f"jobs/{key}/1/requests-89abcdef/{key}-1-89abcdef-00000.jsonl",
        f"jobs/{key}/1/results-89abcdef/{key}-1-00000.jsonl.out",
        f"jobs/{key}/1/results/f6e5d4c3b2a1/{key}-1-89abcdef-00000.jsonl.out",
        f"jobs/{key}/1/results/f6e5d4c3b2a1/manifest.json.out",
        f"merged/{version}/notes.md",
        f"merged/{version}/part-00099.parquet",
        f"merged/{version}/data/part-00099.parquet",
        "merged/v000001-00000000/part-00000.parquet",
    ]


def test_leftovers_go_when_they_are_old_and_nothing_else(tmp_path: Path) -> None:
    pipe = Cleaned(tmp_path)
    first = current(pipe.open().storage)
    assert first is not None
    pipe.recompute(KEYS[0])
    others = [name for key in KEYS for name in foreign(key, first)]
    for name in others:
        pipe.put(name)
    for key in KEYS:
        for name in job(key):
            pipe.put(name)
        describe_job(pipe, key, 1, job(key)[1])
        later = f"jobs/{key}/9/requests-0123abcd/{key}-9-0123abcd-00000.jsonl"
        pipe.put(later)
        describe_job(pipe, key, 9, later)
        pipe.put(f"shards/{key}/attempts/1/rows.parquet")
        pipe.put(f"shards/{key}/attempts/1/attempt.json")
    pipe.put(f"shards/{KEYS[2]}/embeddings-{give_up(pipe, KEYS[2])}.parquet")
    (tmp_path / "in" / "b.jsonl.gz").unlink()
    plan_source(pipe.open(), replace=True)
    before = pipe.files()
    assert counted(pipe.find(after=6 * DAY)) == {}
    assert counted(pipe.find())["superseded"] == 2  # the other one is published yet
    pipe.settings = pipe.settings.model_copy(update={"merge_when": "any"})
    pipe.publish()
    before = pipe.files()

    described = {f"jobs/{KEYS[1]}/{fence}/job.json" for fence in (1, 9)}
    of_removed = {path for path in before if KEYS[1] in path} - {*others} - described
    found = pipe.find()
    assert counted(found) == {
        # Of the shard that is collected, up to its commit; what led to the given up one is evidence.
        "requests": 1,
        "results": 3,
        # The first file's and the removed one's: the third's is needed to try again.
        "spools": 2,
        # What the first shard's first commit named, and all of the one that left the merge.
        "superseded": 2 + len(of_removed),
        "merged": 6,
    }
    assert len(of_removed | described) == 4 + len(job(KEYS[1])) + 2 + 2
    assert pipe.files() == before
    removed = pipe.remove()
    assert (removed.files, removed.bytes) == (found.files, found.bytes)
    gone = before - pipe.files()
    assert len(gone) == removed.files
    assert not any(KEYS[2] in path for path in gone)
    assert of_removed <= gone
    # Those of the shard that left too: what it shared a submission with may count yet.
    assert {f"jobs/{KEYS[0]}/1/job.json"} | described <= pipe.files()
    assert {*others} <= pipe.files()
    assert f"shards/{KEYS[0]}/attempts/1/attempt.json" in pipe.files()
    assert not (pipe.root / f"jobs/{KEYS[0]}/1/results-0123abcd").exists()
    assert not verify(str(pipe.root)).problems
    assert counted(pipe.find()) == {}


def test_data_that_somebody_may_be_about_to_commit_stays(tmp_path: Path) -> None:
    pipe = Cleaned(tmp_path, {"superseded": "0m"})
    pipe.recompute(KEYS[0])
    replaced = counted(pipe.find(after=60))["superseded"]
    for fence in (0, 1, 2, 7):
        pipe.put_data(f"shards/{KEYS[0]}/failures-{fence}-1.parquet")
    assert counted(pipe.find(after=60)) == {"superseded": replaced + 1}
    # No claim has fence 0: that file is nobody's that we know.
    assert counted(pipe.find(after=UNNAMED_SECONDS + 60)) == {"superseded": replaced + 3}


def test_nothing_behind_a_symbolic_link_is_removed(tmp_path: Path) -> None:
    pipe = Cleaned(tmp_path, {"results": "0m"})
    kept = tmp_path / "elsewhere" / "1" / "rows.parquet"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"mine")
    (pipe.root / "shards" / KEYS[0] / "attempts").symlink_to(tmp_path / "elsewhere")
    for name in ("rows.parquet", "attempt.json"):
        pipe.put(f"shards/{KEYS[1]}/attempts/1/{name}")
        (tmp_path / "elsewhere" / "1" / name).write_bytes(b"mine")
    assert counted(pipe.remove()) == {"results": 1}
    assert kept.read_bytes() == b"mine"


def give_up(pipe: Cleaned, key: str) -> int:
    """Have the shard computed again and fail; the fence of the claim that did."""
    pipe.ledger.recompute("texts", [key])
    claim = pipe.ledger.claim("texts", key, pipe.open().holder, None)
    assert claim is not None
    pipe.ledger.fail(claim, "it cannot be", max_attempts=0)
    assert pipe.ledger.shards("texts", keys=[key])[0].state is State.EXHAUSTED
    return claim.fence


def test_what_is_not_named_in_retention_stays(tmp_path: Path) -> None:
    pipe = Cleaned(tmp_path, {"merged": "1h"})
    pipe.add("d")
    assert counted(pipe.find(after=3_601)) == {"merged": 6}
    assert list(pipe.find().kinds) == ["merged"]


def test_a_spool_that_was_cleaned_away_is_made_again_when_it_is_needed(tmp_path: Path) -> None:
    pipe = Cleaned(tmp_path, {"spools": "1h"})
    as_it_is = pipe.settings
    prompted = as_it_is.model.model_copy(update={"prompt": "query: "})
    pipe.settings = as_it_is.model_copy(update={"model": prompted})
    assert counted(pipe.find()) == {}  # all is stale, though no run has noticed yet
    pipe.settings = as_it_is
    assert counted(pipe.remove()) == {"spools": 3}
    before = published(pipe.root)
    pipe.recompute(*KEYS)
    assert published(pipe.root).equals(before)
    unnamed = Spools(pipe.open().storage)  # of a plan in the making, perhaps by another
    unnamed.write(["another source"], pa.schema([("row", pa.int64())]), iter(()))
    assert counted(pipe.find(after=UNNAMED_SECONDS / 2)) == {"spools": 3}
    assert counted(pipe.find(after=UNNAMED_SECONDS + 3_601)) == {"spools": 4}


def test_killed_half_way_the_rest_goes_the_next_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = Cleaned(tmp_path)
    pipe.recompute(*KEYS)
    (tmp_path / "in" / "b.jsonl.gz").unlink()
    plan_source(pipe.open(), replace=True)
    pipe.publish()
    before, found = pipe.files(), pipe.find()
    monkeypatch.setattr("batch_assets.control.cleanup.FILES_AT_ONCE", 1)
    delete, calls = LocalStorage.delete, list[Sequence[str]]()

    def dying(self: LocalStorage, paths: Sequence[str]) -> None:
        calls.append(paths)
        delete(self, paths)
        if len(calls) % 5 == 0:
            raise KeyboardInterrupt

    monkeypatch.setattr(LocalStorage, "delete", dying)
    deaths = 0
    while pipe.find().files:
        try:
            pipe.remove()
        except KeyboardInterrupt:
            deaths += 1
            assert not verify(str(pipe.root)).problems
    assert deaths == found.files // 5
    assert len(before - pipe.files()) == found.files
    pipe.recompute(KEYS[0], KEYS[2])
    assert not verify(str(pipe.root)).problems


def test_only_the_ledger_that_works_on_the_root_removes_anything(tmp_path: Path) -> None:
    pipe = Cleaned(tmp_path)
    owned = pipe.owned()
    other = open_ledger(tmp_path, "other")
    with pytest.raises(NotReady, match="this ledger does not know"):
        owned_pipeline(pipe.settings, other, pipe.host.executor(pipe.settings))
    embed_all(pipe.settings, other, pipe.host)
    for act in (
        pipe.owned,
        lambda: find_leftovers(owned, 0.0),
        lambda: remove_leftovers(owned, time.time() + LATER),
    ):
        with pytest.raises(NotReady, match=r"another ledger has come to .*nothing there is removed"):
            act()
    pipe.settings = pipe.settings.model_copy(update={"retention": None})
    with pytest.raises(ConfigurationError, match=r"keeps everything for ever; set retention"):
        pipe.owned()


@pytest.mark.parametrize("by_link", [False, True])
def test_shards_that_a_pipeline_over_them_has_not_read_yet_stay(tmp_path: Path, by_link: bool) -> None:
    pipe = Cleaned(tmp_path)
    (tmp_path / "link").symlink_to(pipe.root)
    below = make_settings(
        tmp_path,
        source={"pipeline": "texts", "uri": f"shards:{tmp_path / 'link' if by_link else pipe.root}"},
        output={"root": f"{tmp_path}/below"},
    ).model_copy(update={"name": "below"})
    pipeline = open_pipeline(below, pipe.ledger, pipe.host.executor(below))
    keys = plan_source(pipeline).all_keys
    list(prepare_shards(pipeline, keys))
    queue_shards(pipeline, keys)
    (tmp_path / "in" / "b.jsonl.gz").unlink()
    plan_source(pipe.open(), replace=True)
    pipe.publish()
    assert "superseded" not in counted(pipe.find())
    list(collect_shards(pipeline, keys))
    assert counted(pipe.find())["superseded"] == 4
