"""The contact sheet of a pipeline of images: neighbours beside their query, and what it does without some images."""

import base64
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from batch_assets.control.contact_sheet import GAP, LABEL, MOST_BYTES, NEIGHBOURS, QUERIES, SIDE
from batch_assets_tests.fakes import find_parity
from batch_assets_tests.orchestration.deployments import SHARD_ASSETS, Deployment, deploy, make_settings

COLOURS = {"red": (200, 30, 30), "green": (30, 160, 60), "blue": (40, 60, 210), "gold": (220, 180, 20)}


def image_file(colour: tuple[int, int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (300, 200), colour).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def deployment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Deployment]:
    """Twelve images in three shards, three of each colour, which the fake model tells apart by their captions.

    They are bytes, or where files are if the test is given `url`.
    """
    find_parity(monkeypatch)
    names = [list(COLOURS)[number // 3] for number in range(12)]
    table: dict[str, Any] = {
        "caption": names,
        "key": [f"{number:05d}" for number in range(12)],
    }
    (tmp_path / "in").mkdir()
    if getattr(request, "param", "jpg") == "url":
        for name, colour in COLOURS.items():
            (tmp_path / "in" / f"{name}.png").write_bytes(image_file(colour))
        table["url"] = [f"{name}.png" for name in names]
    else:
        table["jpg"] = [image_file(COLOURS[name]) for name in names]
    pq.write_table(pa.table(table), tmp_path / "in" / "00000.parquet")
    source = {"uri": f"{tmp_path}/in", "format": "img2dataset"}
    with deploy(tmp_path, make_settings(tmp_path, "images", source=source)) as deployment:
        deployment.plan()
        keys = deployment.keys
        assert len(keys) == 3
        assert deployment.materialize(*SHARD_ASSETS, shards=(keys[0], keys[-1])).success
        yield deployment


def sheet_of(deployment: Deployment) -> str:
    assert deployment.materialize("merged_embeddings").success
    return deployment.metadata_of("merged_embeddings")["contact_sheet"]


@pytest.mark.parametrize("deployment", ["jpg", "url"], indirect=True)
def test_the_nearest_images_stand_beside_their_query(deployment: Deployment) -> None:
    written = sheet_of(deployment)
    picture = re.match(r"!\[Nearest neighbours\]\(data:image/jpeg;base64,([^)]+)\)", written)
    assert picture is not None, written
    jpeg = base64.b64decode(picture[1])
    assert len(jpeg) <= MOST_BYTES
    with Image.open(io.BytesIO(jpeg)) as sheet:
        cells = sheet.convert("RGB")
    assert cells.width == (1 + NEIGHBOURS) * (SIDE + GAP) + GAP
    middles = [
        [
            cells.getpixel((GAP + column * (SIDE + GAP) + SIDE // 2, GAP + line * (SIDE + LABEL + GAP) + SIDE // 2))
            for column in range(1 + NEIGHBOURS)
        ]
        for line in range(QUERIES)
    ]  # fmt: skip

    def alike(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
        return max(abs(a - b) for a, b in zip(one, other, strict=True)) < 30

    assert any(alike(middles[0][0], colour) for colour in COLOURS.values())
    for query, *neighbours in middles:
        assert [alike(query, each) for each in neighbours] == [True, True, *[False] * (NEIGHBOURS - 2)]
    assert "3 of the 12 images" in written and "could not be shown" not in written


def test_what_cannot_be_shown_is_left_out_and_said(deployment: Deployment) -> None:
    """The source is gone since: the dataset is published all the same."""
    for file in (deployment.root.parent / "in").iterdir():
        file.unlink()
    written = sheet_of(deployment)
    assert "data:image" not in written
    assert "10 of 10 images could not be shown" in written and "00000.parquet" in written
