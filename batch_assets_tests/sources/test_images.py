"""Parquet files of images: which column, which rows are none, what passes through, what is read."""

import base64
import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch_assets.errors import ConfigurationError
from batch_assets.sharding.manifest import prepare_input
from batch_assets.sharding.reading import read_rows, read_shard, sample_texts
from batch_assets.sources.base import BATCH_BYTES
from batch_assets_tests.sharding.planning import Planned, plan, write_lines


def write(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, **options)
    return path


def images(planned: Planned) -> list[bytes | str]:
    return [image for records in planned.records() for image in records.images or []]


def test_img2dataset_rows_become_records(tmp_path: Path) -> None:
    write(
        tmp_path / "src/00000.parquet",
        {
            "url": ["u0", "u1", "u2", "u3", "u4"],
            "key": ["k0", "k1", "k2", "k3", "k4"],
            "caption": ["a cat", None, "", "a dog", "gone"],
            "status": ["success", None, "success", "success", "failed_to_download"],
            "error_message": [None, None, None, None, "HTTP Error 404: Not Found"],
            "width": [1, 2, 3, 4, None],
            "jpg": pa.array([b"one", b"two", b"", b"x" * 101, None], pa.binary()),
        },
        row_group_size=2,
    )
    for companion in ("00000_stats.json", "00000.tar", "metadata.json"):
        (tmp_path / "src" / companion).write_bytes(b"{}")
    planned = plan(
        tmp_path / "src", tmp_path / "root", {"max_record_bytes": 100}, format="img2dataset", id_column="key"
    )
    assert images(planned) == [b"one", b"two"]
    assert planned.texts() == ["a cat", ""]
    assert planned.ids() == ["k0", "k1"]
    assert [(r.record_id, r.code, r.message) for r in planned.rejections()] == [
        ("k2", "no_image", "the image is empty"),
        ("k3", "image_too_large", "101 bytes; shards.max_record_bytes allows 100"),
        ("k4", "not_downloaded", "status 'failed_to_download': HTTP Error 404: Not Found"),
    ]
    assert planned.columns() == {
        "url": ["u0", "u1"],
        "key": ["k0", "k1"],
        "caption": ["a cat", None],
        "meta_status": ["success", None],
        "meta_error_message": [None, None],
        "meta_width": [1, 2],
    }
    assert planned.rows() == [("00000.parquet", row) for row in range(5)]
    assert planned.summary.left_out == ["3 files of other extensions (.json: 2, .tar: 1)"]


PICTURE = pa.array([b"image"], pa.binary())
HUGGING_FACE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        ({"png": PICTURE, "jpg": pa.array([b"jpg"], pa.large_binary()), "url": ["u"]}, b"jpg"),
        ({"jpg": ["text"], "webp": PICTURE, "url": ["u"]}, b"image"),
        ({"image": pa.array([{"bytes": b"image", "path": "x.jpg"}])}, b"image"),
        ({"image": pa.array([{"bytes": None, "path": "x.jpg"}], HUGGING_FACE)}, "x.jpg"),
        ({"image": pa.array([{"bytes": None, "path": "x.jpg"}])}, "x.jpg"),
        ({"image": pa.array([{"path": "x.jpg"}])}, "x.jpg"),
        ({"jpg": pa.nulls(1), "url": ["u"]}, "u"),
        ({"image": PICTURE.dictionary_encode()}, b"image"),
        ({"url": ["https://example.org/x.jpg"], "path": ["p"]}, "https://example.org/x.jpg"),
        ({"path": pa.array(["p"]).dictionary_encode()}, "p"),
    ],
)  # fmt: skip
def test_the_column_that_is_taken_for_the_image(tmp_path: Path, columns: Any, found: bytes | str) -> None:
    write(tmp_path / "a.parquet", columns)
    assert images(plan(tmp_path / "a.parquet", tmp_path / "root", format="img2dataset")) == [found]


def test_a_column_of_nothing_but_nulls_holds_no_image(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", {"jpg": pa.nulls(2), "key": ["a", "b"]})
    rejections = plan(tmp_path / "a.parquet", tmp_path / "root", format="img2dataset").rejections()
    assert [rejection.code for rejection in rejections] == ["no_image", "no_image"]


def test_the_image_column_of_any_parquet_file_can_be_named(tmp_path: Path) -> None:
    table = {"photo.full": PICTURE, "title": ["a title"], "key": [1], "thumb": PICTURE}
    write(tmp_path / "a.parquet", table)
    planned = plan(
        tmp_path / "a.parquet",
        tmp_path / "root",
        image_column="photo.full",
        text_column="title",
        columns=["key"],
    )
    assert (images(planned), planned.texts(), planned.columns()) == ([b"image"], ["a title"], {"key": [1]})
    structure = list(read_shard(planned.settings, planned.shards[0], planned.summary, contents=False))
    assert (structure[0].images, structure[0].texts) == (None, ["a title"])


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ({"format": "img2dataset"}, "'a', 'text'; name the one with the images"),
        ({"image_column": "jpg"}, "has no column 'jpg'; its columns are 'a', 'text'"),
        ({"image_column": "a"}, "'a' of .* holds int64"),
        ({"image_column": "text", "text_column": "title"}, "source.text_column: 'title' is in no record"),
    ],
)
def test_a_column_that_is_no_image(tmp_path: Path, source: dict[str, Any], says: str) -> None:
    write(tmp_path / "a.parquet", {"a": [1], "text": ["x"]})
    with pytest.raises(ConfigurationError, match=says):
        plan(tmp_path / "a.parquet", tmp_path / "root", **source)


def test_image_files_never_pass_through(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", {"jpg": PICTURE, "url": ["u"]})
    with pytest.raises(ConfigurationError, match="'jpg' holds the images themselves"):
        plan(tmp_path / "a.parquet", tmp_path / "root", format="img2dataset", columns=["jpg", "url"])


def test_other_files_pass_through_only_where_they_are_named(tmp_path: Path) -> None:
    table = {
        "jpg": PICTURE,
        "mask": PICTURE,
        "thumbnail": pa.array([{"bytes": b"small", "path": None}], HUGGING_FACE),
        "views": pa.array([[{"bytes": b"left", "path": None}]], pa.list_(HUGGING_FACE)),
        "digest": pa.array([b"0123"], pa.binary(4)),
        "origin": pa.array([{"path": "a.jpg", "license": "CC0"}]),
        "path": ["a.jpg"],
    }
    write(tmp_path / "a.parquet", table)
    planned = plan(tmp_path / "a.parquet", tmp_path / "root", format="img2dataset")
    assert set(planned.columns()) == {"meta_digest", "meta_origin", "meta_path"}
    assert planned.summary.left_out == [
        "the columns 'mask', 'thumbnail', 'views', which hold files; source.columns passes through what it names"
    ]
    planned = plan(tmp_path / "a.parquet", tmp_path / "asked", format="img2dataset", columns=["mask", "path"])
    assert list(planned.columns()) == ["meta_mask", "meta_path"] and images(planned) == [b"image"]
    # Where places are embedded, no file beside them passes through either.
    planned = plan(tmp_path / "a.parquet", tmp_path / "places", image_column="path")
    assert set(planned.columns()) == {"digest", "origin", "path"}
    assert images(planned) == ["a.jpg"]


@pytest.mark.parametrize("format", ["jsonl", "jsonl.gz", "csv"])
def test_places_in_text_files(tmp_path: Path, format: str) -> None:
    (tmp_path / "src/images").mkdir(parents=True)
    (tmp_path / "src/images/1.jpg").write_bytes(b"x")
    places = ["images/1.jpg", "https://example.org/2.jpg", "gone.jpg", "", None]
    rows = [
        {"id": number, "photo": place, "caption": f"photo {number}"} for number, place in enumerate(places)
    ]
    if format == "csv":
        lines = [f"{row['id']},{row['photo'] or ''},{row['caption']}" for row in rows]
        data = "\n".join(["id,photo,caption", *lines]).encode()
    else:
        data = "\n".join(json.dumps(row) for row in rows).encode()
    (tmp_path / f"src/a.{format}").write_bytes(gzip.compress(data) if format.endswith("gz") else data)
    planned = plan(tmp_path / "src", tmp_path / "root", image_column="photo", id_column="id")
    assert images(planned) == [str(tmp_path / "src/images/1.jpg"), "https://example.org/2.jpg", "gone.jpg"]
    assert planned.texts() == ["photo 0", "photo 1", "photo 2"]
    assert planned.ids() == ["0", "1", "2"]
    assert planned.columns()["photo"][0] == "images/1.jpg"
    assert [(r.record_id, r.code) for r in planned.rejections()] == [("3", "no_image"), ("4", "no_image")]
    manifest = prepare_input(planned.settings, planned.shards[0], planned.summary, root=planned.root)
    assert (manifest.valid, manifest.rejected_by_code) == (3, {"no_image": 2})
    path = f"a.{format}"
    wanted = [(path, 1), (path, 3)]
    assert read_rows(planned.settings, planned.shards[0], wanted, planned.summary, planned.root) == {
        (path, 1): ("https://example.org/2.jpg", "photo 1")
    }


def test_images_within_json_lines(tmp_path: Path) -> None:
    content = base64.b64encode(b"image").decode()
    values = [f"data:image/png;base64,{content}", "data:,text", "data:image/png;base64,%%", 7, ["a.jpg"]]
    lines = [json.dumps({"image": value}) for value in values]
    (tmp_path / "a.jsonl").write_text("\n".join([*lines, "no json"]))
    planned = plan(tmp_path / "a.jsonl", tmp_path / "root", image_column="image", columns=[])
    assert images(planned) == [b"image"]
    assert [r.code for r in planned.rejections()] == ["bad_url", "bad_url", "bad_url", "bad_url", "not_json"]
    assert "column 'image' holds a number, which is no text" in "; ".join(
        r.message for r in planned.rejections()
    )
    with pytest.raises(ConfigurationError, match=r"source\.image_column: 'photo' is in no record"):
        plan(tmp_path / "a.jsonl", tmp_path / "other", image_column="photo")


def test_batches_of_places_in_text_files_are_small(tmp_path: Path) -> None:
    rows = [json.dumps({"url": f"https://example.org/{number}"}) for number in range(300)]
    for name, data in (("a.jsonl", rows), ("b.csv", ["url", *(json.loads(row)["url"] for row in rows)])):
        (tmp_path / name).write_text("\n".join(data))
        planned = plan(tmp_path / name, tmp_path / f"root-{name}", image_column="url")
        fetched = [len(records) for records in planned.records()]
        assert sum(fetched) == 300 and max(fetched) <= 128


def test_relative_places_are_found_beside_the_file(tmp_path: Path) -> None:
    write(
        tmp_path / "src/deep/a.parquet",
        {"url": ["../images/1.jpg", "elsewhere/2.jpg", "/abs/3.jpg", "s3://bucket/4.jpg", "", None]},
    )
    (tmp_path / "src/images").mkdir()
    (tmp_path / "src/images/1.jpg").write_bytes(b"x")
    planned = plan(tmp_path / "src", tmp_path / "root", format="img2dataset")
    assert images(planned) == [
        str(tmp_path / "src/images/1.jpg"),
        "elsewhere/2.jpg",
        "/abs/3.jpg",
        "s3://bucket/4.jpg",
    ]
    assert planned.columns()["url"][0] == "../images/1.jpg"
    assert [(r.source_row, r.code) for r in planned.rejections()] == [(4, "no_image"), (5, "no_image")]
    # They are short, so they are looked at where images are not read, too.
    manifest = prepare_input(planned.settings, planned.shards[0], planned.summary)
    assert (manifest.planned, manifest.valid, manifest.rejected_by_code) == (6, 4, {"no_image": 2})


def test_batches_are_bounded_by_bytes_and_by_images_to_fetch(tmp_path: Path) -> None:
    size = 300_000
    write(tmp_path / "whole.parquet", {"jpg": [bytes([n]) * size for n in range(100)]}, row_group_size=90)
    planned = plan(tmp_path / "whole.parquet", tmp_path / "root", {"bytes": "12MB"}, format="img2dataset")
    assert len(planned.shards) == 3
    batches = [sum(len(image) for image in records.images or []) for records in planned.records()]
    assert sum(batches) == 100 * size and max(batches) <= BATCH_BYTES
    wanted = [("whole.parquet", row) for row in (1, 3, 30)]
    assert read_rows(
        planned.settings, planned.shards[0], [*wanted, ("whole.parquet", 95)], planned.summary
    ) == {(path, row): (bytes([row]) * size, "") for path, row in wanted}
    manifest = prepare_input(planned.settings, planned.shards[0], planned.summary)
    assert (manifest.bytes, manifest.estimated_tokens) == (planned.shards[0].bytes, 0)
    write(tmp_path / "places.parquet", {"url": [f"https://example.org/{n}" for n in range(300)]})
    planned = plan(tmp_path / "places.parquet", tmp_path / "other", format="img2dataset")
    fetched = [len(records) for records in planned.records()]
    assert sum(fetched) == 300 and max(fetched) <= 128


def test_captions_are_sampled_without_the_images(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", {"jpg": [b"x", b"y"], "caption": ["one", None]})
    planned = plan(tmp_path / "a.parquet", tmp_path / "root", format="img2dataset")
    assert sample_texts(planned.settings, planned.shards, 10, planned.summary, planned.root) == ["one", ""]


def test_rows_of_a_source_of_texts(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n\n{"text": ""}\n{"text": "d"}\n')
    planned = plan(tmp_path / "a.jsonl", tmp_path / "root")
    wanted = [("a.jsonl", row) for row in range(4)]
    assert read_rows(planned.settings, planned.shards[0], wanted) == {
        ("a.jsonl", 0): (None, "a"),
        ("a.jsonl", 3): (None, "d"),
    }


def test_a_value_of_any_depth_costs_its_own_record(tmp_path: Path) -> None:
    deep = "[" * 1_000 + "]" * 1_000
    write_lines(
        tmp_path / "in" / "a.jsonl", [f'{{"image": {deep}}}', '{"image": "https://example.org/a.jpg"}']
    )
    planned = plan(tmp_path / "in", tmp_path / "root", image_column="image", columns=[])
    assert [(one.source_row, one.code) for one in planned.rejections()] == [(0, "bad_url")]
    assert "holds an array, which is no text" in planned.rejections()[0].message
