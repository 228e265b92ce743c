"""Tars of images: what makes a sample, where its image lies, and tars that are none."""

import gzip
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_assets.errors import SourceError
from batch_assets.sharding.manifest import prepare_input
from batch_assets.sharding.reading import read_rows
from batch_assets.sources.base import BATCH_BYTES
from batch_assets.sources.images import IMAGE_EXTENSIONS
from batch_assets_tests.sharding.planning import Planned, plan
from batch_assets_tests.sources.tars import tar_bytes


def plan_tar(folder: Path, data: bytes, shards: dict[str, Any] | None = None, **source: Any) -> Planned:
    (folder / "00000.tar").write_bytes(data)
    return plan(folder / "00000.tar", folder / "root", shards, format="webdataset", **source)


def images(planned: Planned) -> list[bytes | str]:
    return [image for records in planned.records() for image in records.images or []]


def metadata(**values: Any) -> bytes:
    return json.dumps(values).encode()


def test_samples_with_their_captions_and_metadata(tmp_path: Path) -> None:
    members = [
        ("000.jpg", b"one"), ("000.txt", b"a cat"),
        ("000.json", metadata(key="000", caption="a cat!", url="https://example.org/0", status="success", width=3)),
        ("001.json", metadata(status="failed_to_resize", error_message="too small")), ("001.jpg", b"x"),
        ("002.PNG", b"two"), ("002.cls", b"7\n"),
        ("003.txt", b"words only"),
        ("004.webp", b""),
        ("005.jpg", b"x" * 151),
        ("006.jpg", b"three"), ("006.json", b'[{"box": [1, NaN]}]'),
    ]  # fmt: skip
    planned = plan_tar(tmp_path, tar_bytes(members), {"max_record_bytes": 150}, id_column="key")
    assert images(planned) == [b"one", b"two", b"three"]
    assert planned.texts() == ["a cat", "", ""]
    assert planned.columns() == {
        "key": ["000", "002", "006"],
        "caption": ["a cat", None, None],
        "url": ["https://example.org/0", None, None],
        "meta_status": ["success", None, None],
        "meta_width": [3, None, None],
        "meta_caption": ["a cat!", None, None],
        "meta_error_message": [None, None, None],
        "meta_cls": [None, 7, None],
        "meta_json": [None, None, '[{"box":[1,null]}]'],
    }
    assert [(r.source_row, r.record_id, r.code) for r in planned.rejections()] == [
        (1, "001", "not_downloaded"), (3, "003", "no_image"), (4, "004", "no_image"), (5, "005", "image_too_large"),
    ]  # fmt: skip
    assert planned.rows() == [("00000.tar", row) for row in range(7)]
    manifest = prepare_input(planned.settings, planned.shards[0], planned.summary)
    assert (manifest.valid, manifest.rejected, manifest.bytes) == (3, 4, planned.shards[0].bytes)
    wanted = [("00000.tar", row) for row in (0, 1, 6)]
    assert read_rows(planned.settings, planned.shards[0], wanted) == {
        ("00000.tar", 0): (b"one", "a cat"),
        ("00000.tar", 6): (b"three", ""),
    }


@pytest.mark.parametrize(
    ("bad", "caption", "columns"),
    [
        (("txt", b"\xff"), "", {"meta_width": 3, "meta_caption": "from the JSON"}),
        (("txt", b"x" * 501), "", {"meta_width": 3, "meta_caption": "from the JSON"}),
        (("cls", b"\xff"), "from the JSON", {"meta_width": 3}),
        (("json", b"{"), "good", {}),
        (("json", b"[" * 200_000), "good", {}),
        (("json", b"\xff"), "good", {}),
        (("json", b'{"long": "' + b"x" * 501 + b'"}'), "good", {}),
        (("json", b'{"half": "\\ud800", "width": 3}'), "good", {"meta_width": 3}),
        (("json", b'{"\\ud800": 1, "width": 3}'), "good", {"meta_width": 3}),
        (("json", b'{"width": 3, "long": "' + b"x" * 470 + b'"}'), "good", {"meta_width": 3}),
    ],
)
def test_what_cannot_be_read_beside_an_image_costs_its_own_columns(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    bad: tuple[str, bytes],
    caption: str,
    columns: dict[str, Any],
) -> None:
    beside = {"json": metadata(width=3, caption="from the JSON")} if bad[0] != "json" else {"txt": b"good"}
    beside[bad[0]] = bad[1]
    members = [("000.jpg", b"one"), *((f"000.{ending}", data) for ending, data in beside.items())]
    members += [("001.jpg", b"two"), ("001.txt", b"fine"), ("001.cls", b"1")]
    planned = plan_tar(tmp_path, tar_bytes(members), {"max_record_bytes": 500})
    assert (images(planned), planned.rejections()) == ([b"one", b"two"], [])
    assert planned.texts() == [caption, "fine"]
    found = {name: values[0] for name, values in planned.columns().items()}
    expected = {"key": "000", "caption": caption or None, "meta_cls": None}
    assert {name: value for name, value in found.items() if value is not None or name in expected} == {
        **expected, **columns
    }  # fmt: skip
    assert "00000.tar: 1 images have columns that cannot be read" in caplog.text
    assert "the first is 000: " in caplog.text


def test_keys_and_captions_of_the_json_stay_beside_the_samples_own(tmp_path: Path) -> None:
    members = [
        ("a/1.jpg", b"one"), ("a/1.txt", b"short"), ("a/1.json", metadata(key=17, caption="long", cls="x")),
        ("a/1.cls", b"3"),
        ("a/2.jpg", b"two"), ("a/2.txt", b"same"), ("a/2.json", metadata(key="a/2", caption="same")),
        ("a/3.jpg", b"three"), ("a/3.json", metadata(caption="only")),
    ]  # fmt: skip
    planned = plan_tar(tmp_path, tar_bytes(members), id_column="key")
    assert (planned.ids(), planned.texts()) == (["a/1", "a/2", "a/3"], ["short", "same", "only"])
    columns = planned.columns()
    assert columns.pop("meta_key") == ["17", '"a/2"', None]
    assert columns == {
        "key": ["a/1", "a/2", "a/3"],
        "caption": ["short", "same", "only"],
        "meta_cls": [3, None, None],
        "meta_caption": ["long", "same", None],
        "meta_json.cls": ["x", None, None],
    }
    # Where the JSON says nothing else anywhere, as img2dataset writes it, once is enough, unless it is asked for.
    (tmp_path / "same").mkdir()
    assert set(plan_tar(tmp_path / "same", tar_bytes(members[4:])).columns()) == {"key", "caption"}
    asked = plan(
        tmp_path / "same/00000.tar", tmp_path / "asked", format="webdataset", columns=["json.caption"]
    )
    assert asked.columns() == {"meta_caption": ["same", None]}


def test_of_several_images_in_a_sample_one_can_be_named(tmp_path: Path) -> None:
    members = [
        ("a.left.jpg", b"1"), ("a.right.jpg", b"2"), ("b.jpg", b"3"), ("b.LEFT.jpg", b"4"), ("c.jpg", b"5"),
    ]  # fmt: skip
    planned = plan_tar(tmp_path, tar_bytes(members), image_column="left.jpg")
    assert images(planned) == [b"1", b"4"]
    assert [(r.source_row, r.code) for r in planned.rejections()] == [(2, "no_image")]
    assert "no .left.jpg, which source.image_column names: .jpg" in planned.rejections()[0].message
    # Another choice is another copy of what the tar holds.
    other = plan(tmp_path / "00000.tar", tmp_path / "other", format="webdataset", image_column=".right.jpg")
    assert images(other) == [b"2"]
    assert other.shards[0].segments[0].spool != planned.shards[0].segments[0].spool


def test_samples_that_are_not_side_by_side_or_hold_the_same_twice(tmp_path: Path) -> None:
    members = [
        ("a.jpg", b"1"), ("b.jpg", b"2"), ("a.txt", b"late"), ("a.jpg", b"3"), ("a.jpg", b"4"), ("a.jpeg", b"5"),
        ("x.y/a.jpg", b"6"), ("._a.jpg", b"Finder"), ("c.left.jpg", b"7"), ("d.left.jpg", b"8"), ("d.right.jpg", b"9"),
    ]  # fmt: skip
    planned = plan_tar(tmp_path, tar_bytes(members))
    assert images(planned) == [b"1", b"2", b"3", b"4", b"6", b"7"]
    assert planned.columns()["key"] == ["a", "b", "a", "a", "x.y/a", "c"]
    assert planned.texts()[2] == "late"
    assert [(r.source_row, r.code) for r in planned.rejections()] == [(6, "no_image")]
    assert ".left.jpg, .right.jpg" in planned.rejections()[0].message


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_links_and_folders(tmp_path: Path, format: int) -> None:
    name = "ü" * 150 + "/" + "long" * 30
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as tar:
        for member, kind in ((".", tarfile.DIRTYPE), (name, tarfile.REGTYPE), ("link", tarfile.SYMTYPE)):
            info = tarfile.TarInfo(member if kind == tarfile.DIRTYPE else f"{member}.jpg")
            info.type, info.linkname = kind, "elsewhere" if kind == tarfile.SYMTYPE else ""
            info.size = 5 if kind == tarfile.REGTYPE else 0
            tar.addfile(info, io.BytesIO(b"image"))
    planned = plan_tar(tmp_path, buffer.getvalue())
    assert (images(planned), planned.columns()["key"]) == ([b"image"], [name])


def test_metadata_of_the_companion(tmp_path: Path) -> None:
    table = {"key": ["0", "1", "2"], "caption": ["zero", "one", "gone"], "score": [0.5, float("nan"), 1.0],
             "jpg": [b"not read"] * 3, "views": [[b"not read"]] * 3}  # fmt: skip
    pq.write_table(pa.table(table), tmp_path / "00000.parquet")
    planned = plan_tar(tmp_path, tar_bytes([("0.jpg", b"a"), ("d/1.jpg", b"b"), ("3.jpg", b"c")]))
    assert planned.texts() == ["zero", "one", ""]
    assert planned.columns() == {
        "key": ["0", "1", "3"],
        "caption": ["zero", "one", None],
        "meta_score": [0.5, None, None],
    }


def test_images_are_fetched_some_at_a_time(tmp_path: Path) -> None:
    members = [(f"{n:03d}.jpg", bytes([n]) * 1_000_000) for n in range(30)]
    planned = plan_tar(tmp_path, tar_bytes(members), {"records": 25})
    assert [shard.records for shard in planned.shards] == [25, 5]
    assert images(planned) == [data for _, data in members]
    for records in planned.records():
        assert sum(len(image) for image in records.images or []) <= BATCH_BYTES


ANY_TAR = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "dir/a", ".hidden", "plain"]),
        st.sampled_from(["jpg", "PNG", "txt", "json", "bin", ""]),
        st.integers(0, 1_500),
    ),
    max_size=14,
)


def expected_samples(members: list[tuple[str, bytes]]) -> list[tuple[str, dict[str, bytes]]]:
    """Names and members of each sample, by the rule's plain words."""
    found: list[tuple[str, dict[str, bytes]]] = []
    for path, data in members:
        folder, _, base = path.rpartition("/")
        stem, dot, extension = base.partition(".")
        if not dot or not stem:
            continue
        name = f"{folder}/{stem}" if folder else stem
        if not found or found[-1][0] != name or extension.lower() in found[-1][1]:
            found.append((name, {}))
        found[-1][1][extension.lower()] = data
    return found


@settings(max_examples=60, deadline=None)
@given(parts=ANY_TAR, records=st.integers(1, 4), min_records=st.integers(0, 2))
def test_any_mixture_of_members_is_every_sample_once(
    tmp_path_factory: pytest.TempPathFactory, parts: Any, records: int, min_records: int
) -> None:
    contents = {"json": lambda n, size: metadata(n=n), "txt": lambda n, size: f"text {n}".encode()}
    members = [
        (
            f"{name}.{extension}" if extension else name,
            contents.get(extension, lambda n, size: bytes([n + 1]) * size)(n, size),
        )
        for n, (name, extension, size) in enumerate(parts)
    ]
    folder = tmp_path_factory.mktemp("tar")
    samples = expected_samples(members)
    (folder / "00000.tar").write_bytes(tar_bytes(members))
    source = (folder / "00000.tar", folder / "root")
    if not samples:
        with pytest.raises(SourceError, match="hold no records"):
            plan(*source, format="webdataset")
        return
    planned = plan(
        *source, {"records": max(records, min_records)}, min_records=min_records, format="webdataset"
    )
    found: list[bytes | None] = [None] * len(samples)
    for batch in planned.records():
        for row, image in zip(batch.source_rows, batch.images or [], strict=True):
            assert found[row] is None
            found[row] = image if isinstance(image, bytes) else None
    assert found == [
        next((data for each in IMAGE_EXTENSIONS if (data := files.get(each))), None) or None
        for _, files in samples
    ]
    assert planned.rows() == [("00000.tar", row) for row in range(len(samples))]


def test_a_raised_limit_and_a_touched_tar(tmp_path: Path) -> None:
    data = tar_bytes([(f"{n}.jpg", b"%d" % n) for n in range(5)])
    found = images(plan_tar(tmp_path, data, limit=2))
    more = plan(tmp_path / "00000.tar", tmp_path / "root", format="webdataset")
    assert [*found, *images(more)] == [b"0", b"1", b"2", b"3", b"4"]
    (tmp_path / "00000.tar").write_bytes(tar_bytes([("new.jpg", b"new")]))
    with pytest.raises(SourceError, match=r"00000\.tar: touched since it was planned"):
        more.records()
    with pytest.raises(SourceError, match="touched"):
        prepare_input(more.settings, more.shards[0], more.summary)
    assert images(plan(tmp_path / "00000.tar", tmp_path / "root", replace=True, format="webdataset")) == [
        b"new"
    ]


WHOLE = tar_bytes([("a.jpg", b"x" * 1_000), ("b.jpg", b"y" * 1_000)])


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "empty file"),
        (b"PK\3\4 this is a zip" * 100, "invalid header"),
        (gzip.compress(WHOLE), "compressed by gzip"),
        (WHOLE[:2_300], "unexpected end of data"),
        (WHOLE[: 1_536 + 100], "damaged"),
        (WHOLE[:1_536] + b"#" * 512 + WHOLE[2_048:], "header at byte 1,536 is damaged"),
        (WHOLE + WHOLE, "put together by `cat`"),
    ],
    ids=["nothing", "other", "compressed", "in an image", "in a header", "a header", "two tars"],
)
def test_a_tar_that_is_not_whole(tmp_path: Path, data: bytes, says: str) -> None:
    with pytest.raises(SourceError, match=r"00000\.tar: is no whole tar file.*" + says):
        plan_tar(tmp_path, data)
    assert not list(tmp_path.glob("root/spool/*"))


@pytest.mark.parametrize(
    "end", [3_072, 3_072 - 24, 3_072 + 100], ids=["no mark", "no padding", "half a mark"]
)
def test_a_tar_of_which_only_the_end_is_missing(tmp_path: Path, end: int) -> None:
    assert len(images(plan_tar(tmp_path, WHOLE[:end]))) == 2


def test_a_tar_of_nothing(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src/a.tar").write_bytes(bytes(10_240))
    (tmp_path / "src/b.tar").write_bytes(WHOLE)
    planned = plan(tmp_path / "src", tmp_path / "root", format="webdataset")
    assert planned.rows() == [("b.tar", 0), ("b.tar", 1)]


def test_a_name_that_goes_on_and_on(tmp_path: Path) -> None:
    data = tar_bytes([(f"a.{number}", b"") for number in range(10_001)])
    with pytest.raises(SourceError, match=r"00000\.tar: .*more than 10,000 files in a row are named 'a'"):
        plan_tar(tmp_path, data)


def test_names_of_one_sample_that_would_fill_the_memory(tmp_path: Path) -> None:
    data = tar_bytes([(f"a.{number}" + "x" * 60_000, b"") for number in range(80)])
    with pytest.raises(SourceError, match=r"00000\.tar: .*more than 4,194,304 characters together"):
        plan_tar(tmp_path, data)


def test_an_extension_that_is_no_utf_8_or_very_long(tmp_path: Path) -> None:
    members = [("good.jpg", b"1"), ("photo.caf\udce9", b"2"), ("long." + "x" * 50_000, b"3")]
    planned = plan_tar(tmp_path, tar_bytes(members))
    assert images(planned) == [b"1"]
    assert [r.message for r in planned.rejections()] == [
        "the sample 'photo' has no image: .caf\N{REPLACEMENT CHARACTER}",
        f"the sample 'long' has no image: .{'x' * 60}…",
    ]
