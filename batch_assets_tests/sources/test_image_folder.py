"""Image files in folders: what becomes a record, what stands beside it, what a plan notices."""

import json
from pathlib import Path
from typing import Any

import pytest

from batch_assets.errors import ConfigurationError, SourceError
from batch_assets.sharding.changes import compare_source
from batch_assets.sharding.manifest import prepare_input
from batch_assets.sharding.reading import read_rows
from batch_assets_tests.sharding.planning import Planned, plan


def make(folder: Path, files: dict[str, bytes | str]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
    return folder


def plan_folder(folder: Path, shards: dict[str, Any] | None = None, **options: Any) -> Planned:
    return plan(folder, folder.parent / "root", shards, format="imagefolder", **options)


def images(planned: Planned) -> list[str]:
    """Where the images are, relative to the source."""
    found = [image for records in planned.records() for image in records.images or []]
    return [str(image).removeprefix(planned.summary.base_uri + "/") for image in found]


def test_a_folder_of_photographs(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {
        "2024/_DSC0001.JPG": b"x", "2024/b.png": b"x", "2024/b.txt": "a dog", "2024/c d#?.webp": b"x", "a.ppm": b"x",
        "disk.img": b"x", "empty.jpg": b"", "large.gif": b"x" * 501, "notes.txt": "no image's", "clip.mov": b"x",
        ".DS_Store": b"x", "__MACOSX/a.jpg": b"x",
    }  # fmt: skip
    planned = plan_folder(make(tmp_path / "in", files), {"max_record_bytes": 500}, id_column="key")
    assert images(planned) == ["2024/_DSC0001.JPG", "2024/b.png", "2024/c d#?.webp", "a.ppm", "disk.img"]
    assert planned.ids() == ["2024/_DSC0001", "2024/b", "2024/c d#?", "a", "disk"]
    assert planned.texts() == ["", "a dog", "", "", ""]
    assert planned.columns() == {"key": planned.ids(), "caption": [None, "a dog", None, None, None]}
    assert [(r.source_file, r.source_row, r.record_id, r.code) for r in planned.rejections()] == [
        ("empty.jpg", 0, "empty", "no_image"), ("large.gif", 0, "large", "image_too_large"),
    ]  # fmt: skip
    assert planned.rows() == [(name, 0) for name in [*images(planned), "empty.jpg", "large.gif"]]
    assert planned.summary.left_out == [
        "2 files of other extensions (.mov: 1, .txt: 1)",
        "2 files with a name or folder that begins with '.' or '__', such as .DS_Store",
    ]
    manifest = prepare_input(planned.settings, planned.shards[0], planned.summary)
    assert (manifest.planned, manifest.valid, manifest.rejected) == (7, 5, 2)
    wanted = [("2024/b.png", 0), ("empty.jpg", 0)]
    assert read_rows(planned.settings, planned.shards[0], wanted, planned.summary) == {
        ("2024/b.png", 0): (str(tmp_path / "in/2024/b.png"), "a dog")
    }


def test_what_img2dataset_writes_as_files(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {"00000.parquet": b"PAR1", "00000_stats.json": "{}"}
    for number in (0, 2):
        key = f"{number:09d}"
        caption, url = f"photo {number}", f"https://example.org/{number}"
        told = {"key": key, "caption": caption, "url": url, "status": "success", "error_message": None,
                "width": 64 + number, "exif": "{}", "original_width": None}  # fmt: skip
        files |= {
            f"00000/{key}.jpg": b"x",
            f"00000/{key}.json": json.dumps(told),
            f"00000/{key}.txt": caption,
        }
    planned = plan_folder(make(tmp_path / "in", files), id_column="key")
    assert images(planned) == ["00000/000000000.jpg", "00000/000000002.jpg"]
    assert planned.texts() == ["photo 0", "photo 2"]
    assert planned.columns() == {
        "key": ["000000000", "000000002"],
        "caption": ["photo 0", "photo 2"],
        "url": ["https://example.org/0", "https://example.org/2"],
        "meta_status": ["success"] * 2,
        "meta_error_message": [None, None],
        "meta_width": [64, 66],
        "meta_exif": ["{}", "{}"],
        "meta_original_width": [None, None],
    }
    assert planned.summary.left_out == ["2 files of other extensions (.parquet: 1, .json: 1)"]
    with pytest.raises(ConfigurationError, match=r"2 images with files beside them.*--format imagefolder"):
        plan(tmp_path / "in", tmp_path / "other")


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_the_table_of_hugging_faces_imagefolder(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, ending: str
) -> None:
    rows = [("a.jpg", "cat"), ("deep/b.jpg", "dog"), ("gone.jpg", "?"), (None, "nothing")]
    if ending == "csv":
        table = "\n".join(["file_name,label", *(f"{name or ''},{label}" for name, label in rows)])
    else:
        table = "\n".join(json.dumps({"file_name": name, "label": label}) for name, label in rows) + "\n{"
    files: dict[str, bytes | str] = {
        f"train/metadata.{ending}": table, "train/a.jpg": b"x", "train/deep/b.jpg": b"x", "train/c.jpg": b"x",
        "train/deep/b.json": '{"label": "wolf"}', "other.jpg": b"x",
    }  # fmt: skip
    planned = plan_folder(make(tmp_path / "in", files), text_column="label")
    assert planned.columns() == {
        "key": ["other", "train/a", "train/c", "train/deep/b"],
        "meta_label": [None, "cat", None, "wolf"],
    }
    assert planned.texts() == ["", "cat", "", "wolf"]
    assert f"train/metadata.{ending}: {1 if ending == 'csv' else 2} rows name no image" in caplog.text
    with pytest.raises(ConfigurationError, match="--format imagefolder"):
        plan(tmp_path / "in", tmp_path / "other")


def test_what_cannot_be_read_beside_an_image_costs_its_own_columns(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files: dict[str, bytes | str] = {
        "a.jpg": b"x", "a.json": "{", "b.jpg": b"x", "b.txt": b"\xff", "b.json": '{"n": 1, "caption": "own"}',
        "c.jpg": b"x", "c.json": json.dumps({"long": "x" * 501}), "d.jpg": b"x", "d.json": '{"n": NaN}',
        "e.jpg": b"x", "e.json": '{"n": 2, "status": "failed_to_resize"}',
    }  # fmt: skip
    planned = plan_folder(make(tmp_path / "in", files), {"max_record_bytes": 500})
    assert [r.code for r in planned.rejections()] == ["not_downloaded"]
    assert planned.columns() == {
        "key": ["a", "b", "c", "d"],
        "caption": [None] * 4,
        "meta_n": [None, 1, None, None],
        "meta_caption": [None, "own", None, None],
        "meta_status": [None] * 4,
    }
    assert "in: 3 images have columns that cannot be read" in caplog.text
    assert "the first is a.jpg: .json: " in caplog.text


def test_new_images_are_new_input_and_changed_ones_are_touched(tmp_path: Path) -> None:
    folder = make(
        tmp_path / "in", {f"{name}.jpg": b"x" for name in "abcd"} | {"d.txt": "old", "c.json": "{}"}
    )
    first = plan_folder(folder)
    make(folder, {"e.jpg": b"x", "a.jpg": b"changed", "b.txt": "a caption", "d.txt": "newer"})
    with pytest.raises(SourceError, match=r"a\.jpg: touched"):
        first.records()
    (folder / "c.json").unlink()
    second = plan_folder(folder)
    assert (images(second), second.result.touched) == (["e.jpg"], ["a.jpg", "b.jpg", "c.jpg", "d.jpg"])
    replaced = plan_folder(folder, replace=True)
    assert images(replaced) == ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
    assert replaced.texts() == ["", "a caption", "", "newer"]
    (folder / "b.jpg").unlink()
    assert images(replaced) == ["a.jpg", "c.jpg", "d.jpg"]
    assert [(r.source_file, r.code) for r in replaced.rejections()] == [("b.jpg", "image_missing")]
    (folder / "d.txt").write_text("touched")
    with pytest.raises(SourceError, match=r"d\.txt: touched"):
        replaced.records()


def test_what_changes_in_a_folder_is_found_page_by_page(tmp_path: Path) -> None:
    folder = make(
        tmp_path / "in",
        {"a.jpg": b"x", "a.txt": "x", "_b.jpg": b"x", "c.jpg": b"x", "metadata.csv": "file_name"},
    )
    planned = plan_folder(folder)
    make(folder, {"c.jpg": b"changed", "d.jpg": b"x", "d.json": "{}"})
    (folder / "_b.jpg").unlink()
    versions = {file.path: file.version for file in planned.result.summary.files}
    found = compare_source(planned.settings, lambda after, until: versions, "imagefolder")
    assert (found.new, found.touched, found.removed) == (["d.jpg"], ["c.jpg"], ["_b.jpg"])


def test_shards_and_a_limit(tmp_path: Path) -> None:
    folder = make(tmp_path / "in", {f"{number:03d}.jpg": b"x" for number in range(300)})
    planned = plan_folder(folder, {"records": 140}, limit=290)
    assert [shard.records for shard in planned.shards] == [140, 140, 10]
    assert images(planned) == [f"{number:03d}.jpg" for number in range(290)]
    assert planned.rows() == [(f"{number:03d}.jpg", 0) for number in range(290)]
    assert max(len(records) for records in planned.records()) <= 128
    raised = plan_folder(folder, {"records": 140})
    assert images(raised) == [f"{number:03d}.jpg" for number in range(290, 300)]


def test_a_single_photograph(tmp_path: Path) -> None:
    make(tmp_path, {"a.b.jpg": b"x", "a.b.txt": "alone", "a.jpg": b"x"})
    planned = plan(tmp_path / "a.b.jpg", tmp_path / "root", format="imagefolder")
    assert (planned.texts(), planned.columns()["key"]) == (["alone"], ["a.b"])
