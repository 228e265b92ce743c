"""The test data set of images: real photographs, in every layout, always the same."""

import importlib.util
import io
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from batch_assets_tests.module_imports import REPOSITORY
from batch_assets_tests.sharding.planning import plan


@pytest.fixture(scope="module")
def example() -> ModuleType:
    name = "make_image_dataset"
    spec = importlib.util.spec_from_file_location(name, REPOSITORY / f"examples/{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_layout_holds_the_same_photographs(example: ModuleType, tmp_path: Path) -> None:
    found: dict[str, tuple[list[bytes], list[str], int]] = {}
    for layout in ("img2dataset", "webdataset", "urls"):
        format = "img2dataset" if layout == "urls" else layout
        rows = example.write_data_set(
            tmp_path / layout, format=format, images=30, shards=2, urls=layout == "urls", failed=2
        )
        assert rows == 32
        planned = plan(tmp_path / layout, tmp_path / "out" / layout, format=format)
        images = [image for records in planned.records() for image in records.images or []]
        contents = [image if isinstance(image, bytes) else Path(image).read_bytes() for image in images]
        assert {r.code for r in planned.rejections()} <= {"not_downloaded"}
        found[layout] = contents, planned.texts(), len(planned.rejections())
        assert len({file.path for file in planned.summary.files}) == 2
    assert found["img2dataset"] == found["urls"]
    assert found["webdataset"] == (*found["urls"][:2], 0)  # a tar has only what was downloaded
    contents, captions, failed = found["urls"]
    assert (len(contents), failed, len(set(contents))) == (30, 2, 30)
    with Image.open(io.BytesIO(contents[0])) as image:
        assert (image.format, image.size) == ("JPEG", (683, 512))
    assert {Image.open(io.BytesIO(data)).format for data in contents} == {"JPEG", "PNG", "WEBP"}
    assert captions[0].startswith("an astronaut")


def test_a_complete_folder_stays_and_another_is_refused(example: ModuleType, tmp_path: Path) -> None:
    example.write_data_set(tmp_path / "a", images=3, shards=1)
    before = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "a").iterdir()}
    assert example.write_data_set(tmp_path / "a", images=3, shards=1) == 3
    assert {file.name: file.stat().st_mtime_ns for file in (tmp_path / "a").iterdir()} == before
    with pytest.raises(SystemExit, match="remove it or name another folder"):
        example.write_data_set(tmp_path / "a", images=4, shards=1)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    with pytest.raises(SystemExit, match="--urls"):
        example.write_data_set(tmp_path / "b", format="webdataset", urls=True)


def test_no_photographs(example: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(example, "PHOTOGRAPHS", (("no_such_package", "data", "a.png", "nothing"),))
    with pytest.raises(SystemExit, match="scikit-image"):
        example.write_data_set(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []
