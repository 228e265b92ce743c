"""Which files make up a source."""

import os
from pathlib import Path

import pytest

from batch_assets.errors import ConfigurationError, SourceError
from batch_assets.sources.format_guess import guess_format
from batch_assets.sources.listing import format_of, list_source


def make(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b'{"text": "x"}\n')


@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("a.jsonl", "jsonl"), ("a.NDJSON", "jsonl"), ("a.json", "jsonl"), ("a.jsonl.gz", "jsonl"),
        ("a.json.zst", "jsonl"), ("a.csv", "csv"), ("a.tsv.gz", "csv"), ("a.csv.zst", "csv"),
        ("a.parquet", "parquet"), ("a.parquet.gz", None), ("a.tar", "webdataset"), ("a.tar.gz", None),
        ("a.gz", None), ("a.txt", None), ("jsonl", None),
    ],
)  # fmt: skip
def test_formats_by_name(name: str, format: str | None) -> None:
    assert format_of(name) == format


def test_a_folder_in_the_order_of_full_paths(tmp_path: Path) -> None:
    names = [
        "b.jsonl",
        "a/z.jsonl",
        "a-b.jsonl",
        "a.jsonl",
        "a b/c%20+ü.jsonl",
        "deep/er/x.json.gz",
        "Z.ndjson",
    ]
    make(tmp_path, *names)
    assert [info.path for info in list_source(str(tmp_path), None).files] == sorted(names)


def test_what_is_left_out_is_told(tmp_path: Path) -> None:
    make(tmp_path, "a.jsonl", "notes.md", "_SUCCESS", ".hidden/a.jsonl", "x/_b.jsonl", "c.csv")
    listing = list_source(str(tmp_path), "jsonl")
    assert [info.path for info in listing.files] == ["a.jsonl"]
    told = "; ".join(listing.left_out)
    assert ".md: 1" in told
    assert "1 csv files" in told
    assert "3 files with a name or folder" in told


def test_two_formats_need_a_choice(tmp_path: Path) -> None:
    make(tmp_path, "a.jsonl", "b.csv", "c.csv")
    with pytest.raises(ConfigurationError, match=r"csv \(2 files\), jsonl \(1 files\)"):
        list_source(str(tmp_path), None)


@pytest.mark.parametrize("names", [[], ["a.md"], ["_a.jsonl"]])
def test_nothing_found(tmp_path: Path, names: list[str]) -> None:
    make(tmp_path, *names)
    with pytest.raises(SourceError, match="no files ending in"):
        list_source(str(tmp_path), None)
    with pytest.raises(SourceError, match="is the path right"):
        list_source(str(tmp_path / "missing"), None)


def test_a_single_file_needs_no_known_name_if_its_format_is_named(tmp_path: Path) -> None:
    make(tmp_path, "data.txt")
    with pytest.raises(ConfigurationError, match=r"source\.format"):
        list_source(str(tmp_path / "data.txt"), None)
    listing = list_source(str(tmp_path / "data.txt"), "jsonl")
    assert (listing.location.storage.uri, listing.files[0].path) == (str(tmp_path), "data.txt")


def test_an_output_root_inside_the_source_is_no_part_of_it(tmp_path: Path) -> None:
    make(tmp_path, "a.jsonl", "out/pipeline.json", "out-put/b.jsonl")
    listing = list_source(str(tmp_path), None, [str(tmp_path / "out")])
    assert [info.path for info in listing.files] == ["a.jsonl", "out-put/b.jsonl"]
    with pytest.raises(ConfigurationError, match=r"output\.root"):
        list_source(str(tmp_path), None, [str(tmp_path)])


def test_links_are_followed_but_not_round_in_circles(tmp_path: Path) -> None:
    make(tmp_path / "elsewhere", "b.jsonl")
    make(tmp_path / "src", "a.jsonl")
    (tmp_path / "src" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "src" / "circle").symlink_to(tmp_path / "src")
    (tmp_path / "src" / "dangling.jsonl").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "src" / "pipe.jsonl")
    (tmp_path / "src" / "dangling.txt").symlink_to(tmp_path / "nowhere")
    listing = list_source(str(tmp_path / "src"), None)
    assert [info.path for info in listing.files] == ["a.jsonl", "linked/b.jsonl"]
    assert [(info.path, info.version) for info in listing.dangling] == [
        ("dangling.jsonl", str(tmp_path / "nowhere"))
    ]


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    for name in (b"\xff.jsonl", b"\xff.txt", b"a.jsonl"):
        (tmp_path / os.fsdecode(name)).write_bytes(b"{}")
    listing = list_source(str(tmp_path), None)
    assert [info.path for info in listing.files] == ["a.jsonl"]
    assert [os.fsencode(info.path) for info in listing.misnamed] == [b"\xff.jsonl"]
    assert any("1 files whose name is no UTF-8" in told for told in listing.left_out)


@pytest.mark.parametrize(
    ("names", "format"),
    [
        (["0.tar"], "webdataset"),
        (["0.tar", "0.parquet", "0_stats.json"], "webdataset"),
        (["0.parquet", "0_stats.json", "1.parquet", "1_stats.json"], "img2dataset"),
    ],
)
def test_shards_of_images_ask_for_their_format(tmp_path: Path, names: list[str], format: str) -> None:
    make(tmp_path, *names)
    with pytest.raises(ConfigurationError, match=rf"source\.format: {format} \(--format {format}\)"):
        list_source(str(tmp_path), None)
    if format == "webdataset":
        with pytest.raises(ConfigurationError, match=r"0\.tar is a tar"):
            list_source(str(tmp_path / "0.tar"), None)
    assert guess_format(str(tmp_path)) == format
    extension = ".tar" if format == "webdataset" else ".parquet"
    listing = list_source(str(tmp_path), format)
    assert [info.path for info in listing.files] == [name for name in names if name.endswith(extension)]
    assert "jsonl" not in "; ".join(listing.left_out)


def test_what_holds_no_images_by_its_names(tmp_path: Path) -> None:
    make(tmp_path / "texts", "a.jsonl", "_x.tar")
    make(tmp_path / "tables", "a.parquet", "b.json")
    assert guess_format(str(tmp_path / "texts")) is None
    assert guess_format(str(tmp_path / "missing")) is None
    assert guess_format(str(tmp_path / "tables/a.parquet")) is None
    assert guess_format(str(tmp_path / "tables/a.parquet"), tables=True) == "img2dataset"
    assert guess_format(str(tmp_path), [str(tmp_path / "tables")], tables=True) is None
    with pytest.raises(ConfigurationError, match=r"jsonl \(1 files\), parquet \(1 files\)"):
        list_source(str(tmp_path / "tables"), None)


@pytest.mark.parametrize(
    ("names", "format"),
    [
        (["a.JPG", "deep/_DSC1.png", "x.mov"], "imagefolder"),
        (["a.jpg", "a.json", "a.txt"], "imagefolder"),
        (["train/a.jpg", "train/metadata.jsonl"], "imagefolder"),
        (["0.parquet", "0/a.jpg", "0/a.json", "0_stats.json"], "imagefolder"),
        (["0.parquet", "images/a.jpg"], None),
        (["0.parquet", "0_stats.json", "images/a.jpg"], "img2dataset"),
        (["a.jpg", "texts.jsonl"], None),
        (["a.jpg", "a.jsonl"], None),
        (["a.jpg", "0.tar"], "webdataset"),
        (["a.jpg", "_x.parquet"], "imagefolder"),
    ],
)
def test_folders_of_images_by_their_names(tmp_path: Path, names: list[str], format: str | None) -> None:
    make(tmp_path / "in", *names)
    assert guess_format(str(tmp_path / "in")) == format
    if format == "imagefolder":
        for path in ("in", f"in/{names[0]}") if names[0].lower().endswith("jpg") else ("in",):
            assert guess_format(str(tmp_path / path)) == format
        with pytest.raises((ConfigurationError, SourceError), match="--format imagefolder"):
            list_source(str(tmp_path / "in"), None)
    if names == ["0.parquet", "images/a.jpg"]:
        assert guess_format(str(tmp_path / "in"), tables=True) == "img2dataset"


def test_compressed_tars_are_not_read(tmp_path: Path) -> None:
    make(tmp_path, "a.tar.gz", "b.TGZ")
    with pytest.raises(SourceError, match=r"only compressed tars .*unpack them"):
        list_source(str(tmp_path), "webdataset")
    make(tmp_path, "c.tar")
    assert list_source(str(tmp_path), "webdataset").left_out == [
        "2 files of other extensions (.tar.gz: 1, .tgz: 1)"
    ]
