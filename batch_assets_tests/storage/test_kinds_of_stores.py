"""What Google's, Azure's and S3's stores do each in their own way, and a pipeline sees the same.

The stores are imitations: they show which conditions are sent, not that the real ones heed them.
"""

import os

import pytest

from batch_assets.errors import ConfigurationError
from batch_assets.storage import open_storage
from batch_assets_tests import pauses
from batch_assets_tests.storage.stores import MODIFIED, Asked, Store, Told, fault

URIS = ["s3://bucket/out", "gs://bucket/out", "az://bucket/out"]


@pytest.fixture(params=URIS)
def uri(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_file_is_replaced_at_its_version_only(store: Store, uri: str) -> None:
    storage = open_storage(uri)
    assert storage.create("marker", b"one")
    assert not storage.create("marker", b"two")
    found = storage.read_versioned("marker")
    assert found is not None
    assert storage.replace("marker", b"two", found[1])
    assert not storage.replace("marker", b"three", found[1])
    again = storage.read_versioned("marker")
    assert again is not None
    assert again[0] == b"two"
    assert storage.replace("marker", b"three", again[1])
    assert storage.read("marker") == b"three"
    storage.delete(["marker"])
    assert not storage.replace("marker", b"four", again[1])


def test_what_is_gone_keeps_nothing_else_from_being_deleted(store: Store, uri: str) -> None:
    storage = open_storage(uri)
    names = [f"{number:03d}" for number in range(600)]
    for name in names[1::2]:
        storage.write(name, b"")
    storage.delete(names)
    assert store.objects == {}
    storage.delete(names[:2])


@pytest.mark.parametrize("size", [99, 100])
def test_what_s3_does_not_copy_in_one_step_is_copied_all_the_same(
    store: Store, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    def refuse(asked: Asked) -> Told | None:
        large = "x-amz-copy-source" in asked.headers and size > 99
        return fault(400, "InvalidRequest", "The source is larger than the maximum of 99") if large else None

    monkeypatch.setattr("batch_assets.storage.objects.MOST_COPIED_BY_S3", 99)
    store.refuse = refuse
    data = os.urandom(size)
    storage = open_storage("s3://bucket/out")
    storage.write("file", data)
    storage.copy("file", "copy")
    assert storage.read("copy") == data


def test_a_copy_that_is_refused_for_another_reason_stays_refused(store: Store) -> None:
    storage = open_storage("s3://bucket/out")
    storage.write("file", b"1")
    store.refuse = lambda asked: fault(403, "AccessDenied", "no") if asked.method == "PUT" else None
    with pytest.raises(ConfigurationError, match="AccessDenied: no"):
        storage.copy("file", "copy")


@pytest.mark.parametrize("size", range(1, 8))
def test_no_file_is_told_twice_however_often_a_list_breaks_off(
    store: Store, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """A console's "a/" stands behind "a-1" and comes as "a"."""
    keys = sorted(
        f"out/{name}" for name in ("a-1", "a-2", "a/", "a-1/", "a-1/b", "a/b", "b", "c-1", "c", "c/")
    )
    failed: set[str] = set()

    def list_a_page(asked: Asked) -> Told | None:
        start = asked.query.get("continuation-token", asked.query.get("start-after", [""]))[0]
        if start not in failed:
            failed.add(start)
            return fault(503, "SlowDown")
        rest = [key for key in keys if key > start]
        items = "".join(
            f"<Contents><Key>{key}</Key><LastModified>{MODIFIED}</LastModified><ETag>1</ETag><Size>1</Size></Contents>"
            for key in rest[:size]
        )
        more = f"<NextContinuationToken>{rest[size - 1]}</NextContinuationToken>" if len(rest) > size else ""
        page = f"<ListBucketResult><IsTruncated>{str(bool(more)).lower()}</IsTruncated>{more}{items}</ListBucketResult>"
        return Told(200, page.encode())

    monkeypatch.setattr("batch_assets.storage.reach.FIRST_ANSWER_SECONDS", 60.0)
    monkeypatch.setattr("batch_assets.storage.reach.AWAY_SECONDS", 60.0)
    store.refuse = list_a_page
    with pauses.skipping(lambda: None):
        told = [info.path for info in open_storage("s3://bucket/out").list()]
    assert sorted(told) == ["a", "a-1", "a-1/b", "a-2", "a/b", "b", "c", "c-1"]
