"""Images through the real command: every kind of bad one accounted for, the good ones as transformers embeds them."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch_assets_tests.builders import make_tiny_clip
from batch_assets_tests.command import Machine, accounting_of, make_machine, published
from batch_assets_tests.pictures import bad_images, image_file, photograph
from batch_assets_tests.worker.servers import Handler, image_server

BAD = [(code, content) for code, files in bad_images().items() for content in files]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return make_machine(tmp_path / "home", NO_PROXY="*")


def failures(root: Path) -> dict[str, tuple[str, str]]:
    """Key → stage and code, of the published version."""
    version = (root / "merged" / "CURRENT").read_text().strip()
    rows = pl.read_parquet(root / "merged" / version / "failures.parquet")
    return dict(zip(rows["record_id"], zip(rows["stage"], rows["error_code"], strict=True), strict=True))


def vectors_by_transformers(clip: Path, numbers: list[int]) -> np.ndarray:
    import torch
    from transformers import AutoImageProcessor, CLIPModel

    processor = AutoImageProcessor.from_pretrained(str(clip), backend="pil")
    model = CLIPModel.from_pretrained(str(clip)).eval()
    pixels = processor(images=[photograph(number) for number in numbers], return_tensors="pt")
    with torch.inference_mode():
        found = model.get_image_features(**pixels)
        vectors = getattr(found, "pooler_output", found).numpy()
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def assert_as_transformers(clip: Path, rows: pl.DataFrame, formats: dict[int, str]) -> None:
    """Losslessly stored images are compared: of a JPEG file, `photograph` is not what is in it."""
    numbers = [number for number, format in formats.items() if format == "PNG"]
    wanted = [f"{number:05d}" for number in numbers]
    ours = np.stack(
        [rows.row(by_predicate=pl.col("record_id") == key, named=True)["embedding"] for key in wanted]
    )
    assert (ours * vectors_by_transformers(clip, numbers)).sum(axis=1).min() >= 0.9995


def test_parquet_with_places_of_every_kind(machine: Machine, tmp_path: Path, clip: Path) -> None:
    formats = {number: ("JPEG", "PNG", "WEBP")[number % 3] for number in range(12)}
    (tmp_path / "in" / "images").mkdir(parents=True)
    urls: list[str | None] = []
    for number, format in formats.items():
        (tmp_path / "in" / "images" / f"{number}.img").write_bytes(image_file(number, format))
        urls.append(f"images/{number}.img" if number % 2 else f"file://{tmp_path}/in/images/{number}.img")
    expected: dict[str, tuple[str, str]] = {}

    def add(url: str | None, code: str) -> None:
        expected[f"{len(urls):05d}"] = "reject", code
        urls.append(url)

    for number, (code, content) in enumerate(BAD):
        (tmp_path / "in" / "images" / f"bad{number}").write_bytes(content)
        add(f"images/bad{number}", code)
    with image_server() as server:
        Handler.content = image_file(3, "PNG")
        formats[len(urls)] = "HTTP"
        urls.append(f"{server}/good/1.png")
        add(f"{server}/status?code=404", "image_missing")
        add(f"{server}/to?url=ftp://host/1.png", "bad_url")
        add("images/none.jpg", "image_missing")
        add("ftp://host/1.jpg", "bad_url")
        add(None, "no_image")
        add("images/1.img", "not_downloaded")
        status = ["success"] * (len(urls) - 1) + ["failed_to_download"]
        table = {
            "key": [f"{number:05d}" for number in range(len(urls))],
            "url": urls,
            "caption": [f"photograph {number}" if number % 4 else None for number in range(len(urls))],
            "status": status,
            "width": list(range(len(urls))),
        }
        pq.write_table(pa.table(table), tmp_path / "in" / "00000.parquet")
        (tmp_path / "in" / "00000_stats.json").write_text("{}")
        arguments = [
            "run", "--input", tmp_path / "in", "--output", tmp_path / "out", "--model", clip,
            "--format", "img2dataset", "--id-column", "key", "--dtype", "float32", "--allow-private-addresses",
        ]  # fmt: skip
        result = machine.run(*arguments)
    assert result.returncode == 3, result.stderr
    assert accounting_of(result) == (len(urls), 13, len(expected), 0)
    assert failures(tmp_path / "out") == expected
    rows = published(tmp_path / "out")
    assert rows["record_id"].to_list() == [f"{number:05d}" for number in formats]
    assert rows["meta_width"].to_list() == list(formats)
    assert rows["url"].to_list() == [urls[number] for number in formats]
    assert rows["caption"].to_list() == [table["caption"][number] for number in formats]
    assert rows["token_count"].n_unique() == 1 and rows["token_count"][0] > 1
    formats[12 + len(BAD)] = "HTTP"
    assert_as_transformers(clip, rows, formats)
    # What came over HTTP is photograph 3, which is also record 3: as WebP's neighbour, a JPEG.
    http, jpeg = (
        np.array(rows.row(by_predicate=pl.col("record_id") == key, named=True)["embedding"])
        for key in (f"{12 + len(BAD):05d}", "00003")
    )
    assert http @ jpeg > 0.99


def test_bad_images_in_tars_cost_themselves_only(machine: Machine, tmp_path: Path, clip: Path) -> None:
    (tmp_path / "in").mkdir()
    formats: dict[int, str] = {}
    expected: dict[str, tuple[str, str]] = {}
    number = 0
    for shard in range(6):
        with tarfile.open(tmp_path / "in" / f"{shard:05d}.tar", "w") as tar:
            for place in range(20):
                key = f"{number:05d}"
                extension, format = [("jpg", "JPEG"), ("png", "PNG"), ("webp", "WEBP")][number % 3]
                content = image_file(number, format)
                if 0 < place <= 8 and shard % 2:
                    code, content = BAD[place - 1]
                    expected[key] = "reject", code
                else:
                    formats[number] = format
                members = {
                    extension: content,
                    "txt": f"photograph {number}".encode(),
                    "json": json.dumps({"key": key, "number": number}).encode(),
                }
                for ending, data in members.items():
                    member = tarfile.TarInfo(f"{key}.{ending}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
                number += 1
    arguments = [
        "run", "--input", tmp_path / "in", "--output", tmp_path / "out", "--model", clip, "--shard-records", 20,
        "--format", "webdataset", "--id-column", "key", "--dtype", "float32", "--max-failed", 0.3,
    ]  # fmt: skip
    result = machine.run(*arguments)
    assert result.returncode == 0, result.stderr
    assert accounting_of(result) == (120, 120 - len(expected), len(expected), 0)
    assert failures(tmp_path / "out") == expected
    rows = published(tmp_path / "out")
    assert rows["record_id"].to_list() == [f"{number:05d}" for number in formats]
    assert rows["caption"].to_list() == [f"photograph {number}" for number in formats]
    assert_as_transformers(clip, rows, formats)


def test_a_plain_folder_of_photographs(machine: Machine, tmp_path: Path, clip: Path) -> None:
    """By the older tool's flags: nothing says that these are images, nor which column is the id."""
    kinds = [("jpg", "JPEG"), ("ppm", "PPM"), ("img", "PNG"), ("PNG", "PNG")]
    formats: dict[int, str] = {}
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for number in range(8):
        extension, formats[number] = kinds[number % 4]
        path = tmp_path / "in" / ("deep" if number % 2 else "") / f"{number:05d}"
        path.with_suffix(f".{extension}").write_bytes(image_file(number, formats[number]))
        path.with_suffix(".txt").write_bytes(f"photograph {number}".encode() if number else b"\xff")
    code, content = BAD[0]
    (tmp_path / "in" / "bad.jpg").write_bytes(content)
    result = machine.run(
        "run", "--input_dir", tmp_path / "in", "--output_dir", tmp_path / "out", "--model_directory", clip,
        "--dtype", "float32", "--max-failed", 0.2,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert accounting_of(result) == (9, 8, 1, 0)
    assert failures(tmp_path / "out") == {"bad": ("reject", code)}
    rows = published(tmp_path / "out")
    assert rows["record_id"].to_list() == sorted(
        f"{'deep/' if number % 2 else ''}{number:05d}" for number in formats
    )
    assert set(rows["source_row"]) == {0} and "deep/00001.ppm" in rows["source_file"].to_list()
    captions = dict(zip(rows["key"], rows["caption"], strict=True))
    assert (captions["00000"], captions["deep/00005"]) == (None, "photograph 5")
    named = rows.with_columns(record_id=pl.col("record_id").str.strip_prefix("deep/"))
    assert_as_transformers(clip, named, {number: "PNG" for number in formats if formats[number] != "JPEG"})


def test_paths_of_images_in_a_csv_file(machine: Machine, tmp_path: Path, clip: Path) -> None:
    (tmp_path / "in" / "images").mkdir(parents=True)
    for number in range(4):
        (tmp_path / "in" / "images" / f"{number}.png").write_bytes(image_file(number, "PNG"))
    lines = [f"{number:05d},images/{number}.png,{number}.5" for number in range(5)]
    (tmp_path / "in" / "photos.csv").write_text("\n".join(["id,file,stars", *lines, "00005,,"]))
    result = machine.run(
        "run", "--input", tmp_path / "in" / "photos.csv", "--output", tmp_path / "out", "--model", clip,
        "--image-column", "file", "--id-column", "id", "--dtype", "float32", "--max-failed", 0.5,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert failures(tmp_path / "out") == {
        "00004": ("reject", "image_missing"), "00005": ("reject", "no_image"),
    }  # fmt: skip
    rows = published(tmp_path / "out")
    assert rows["stars"].to_list() == ["0.5", "1.5", "2.5", "3.5"]
    assert_as_transformers(clip, rows, dict.fromkeys(range(4), "PNG"))


def test_every_image_rejected_publishes_nothing(machine: Machine, tmp_path: Path, clip: Path) -> None:
    contents = [content for _, content in BAD]
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"picture": contents}), tmp_path / "in" / "a.parquet")
    result = machine.run(
        "run", "--input", tmp_path / "in", "--output", tmp_path / "out", "--model", clip,
        "--image-column", "picture", "--max-failed", 1,
    )  # fmt: skip
    assert result.returncode == 1, result.stderr
    assert accounting_of(result) == (len(BAD), 0, len(BAD), 0)
    assert not (tmp_path / "out" / "merged" / "CURRENT").exists()
