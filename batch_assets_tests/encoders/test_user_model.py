"""A user's own model directory runs when it is trusted, and says what is wrong with it when it cannot."""

import os
import textwrap
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from batch_assets.encoders import user_model
from batch_assets.encoders.base import ImageItem
from batch_assets.encoders.fingerprint import fingerprint
from batch_assets.encoders.reference import reference_image_vectors, reference_vectors
from batch_assets.encoders.registry import load_encoder, load_query_encoder
from batch_assets.encoders.user_model import UserModelEncoder
from batch_assets.errors import ModelError
from batch_assets.settings.model import ModelSettings
from batch_assets.settings.pipeline import PipelineSettings, parse_pipeline
from batch_assets_tests.encoders.pictures import photograph, written

COLOURS = """
    import json
    from pathlib import Path

    import torch

    from colours import mean_colour      # a file beside this one

    HERE = Path(__file__).parent

    class ModelImpl:
        def __init__(self):
            self.ready = []

        def load(self):
            self.scale = json.loads((HERE / "weights.pt").read_text())
            self.ready.append("load")

        def warmup(self):
            self.ready.append("warmup")

        def batch_size(self):
            return 3

        def batch_wait_s(self):
            return 0.003

        def encode(self, items):
            assert self.ready == ["load", "warmup"], self.ready
            assert len(items) <= 3
            assert all(item["image"] is None or item["image"].mode == "RGB" for item in items)
            return torch.tensor([[*mean_colour(item["image"]), float(len(item["text"] or "")), self.scale]
                                 for item in items], requires_grad=True)
"""
HELPER = """
    import numpy as np

    def mean_colour(image):
        return [0.0, 0.0, 0.0] if image is None else np.asarray(image, dtype=float).mean((0, 1)).tolist()
"""


def make_model(
    folder: Path, code: str = COLOURS, config: str = '{"name": "colours", "batch_size": 7}'
) -> Path:
    (folder / "deep").mkdir(parents=True)
    for name, text in {
        "model.py": code,
        "colours.py": HELPER,
        "config.json": config,
        "weights.pt": "2.5",
    }.items():
        (folder / name).write_text(textwrap.dedent(text))
    return folder


def with_encode(body: str, more: str = "") -> str:
    """A model whose encode has one expression, of `items`."""
    return f"""
    import numpy as np

    class ModelImpl:
        {more}
        def load(self): pass

        def encode(self, items):
            return {body}
    """


def settings(folder: Path, source: dict[str, Any] | None = None, **model: Any) -> PipelineSettings:
    values = {
        "source": {"uri": "data", **(source or {})},
        "model": {"id": str(folder), "trust_remote_code": True, **model},
        "output": {"root": "out"},
    }
    return parse_pipeline(values, "name", "test")


def load(folder: Path, **model: Any) -> UserModelEncoder:
    return UserModelEncoder.load(ModelSettings(id=str(folder), trust_remote_code=True, **model), "text")


IMAGES = {"format": "img2dataset"}


def test_images_and_captions_from_any_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_model(tmp_path / "models" / "colours")
    monkeypatch.chdir(tmp_path)
    relative = settings(Path(os.path.relpath(folder)), IMAGES, normalize=False)
    encoder = load_encoder(relative)
    assert (encoder.takes, encoder.dimensions, encoder.batch_records, encoder.threads) == ("image", 5, 3, 1)
    colours = [(200, 10, 30), (0, 0, 0), (9, 8, 7)]
    items = [
        ImageItem(written(Image.new("RGB", (9, 6), colour), "PNG"), "é" * size)
        for size, colour in enumerate(colours)
    ]
    prepared = encoder.prepare([*items[:2], ImageItem(b"<html>"), items[2]])
    assert prepared.counts.tolist() == [1, 1, 0, 1]
    assert {at: fault.code for at, fault in prepared.faults.items()} == {2: "not_an_image"}
    vectors = encoder.encode([prepared.inputs[at] for at in (0, 1, 3)])
    assert vectors.dtype == np.float32
    assert vectors.tolist() == [[*colour, size, 2.5] for size, colour in enumerate(colours)]
    assert np.allclose(reference_image_vectors(relative.model, items), vectors)


def test_texts_and_queries(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model")
    encoder = load_encoder(settings(folder, prompt="q: "))
    vectors = encoder.encode(encoder.prepare(["", "abc"]).inputs)
    assert np.allclose(
        vectors * np.array([[np.hypot(3, 2.5)], [np.hypot(6, 2.5)]]), [[0, 0, 0, 3, 2.5], [0, 0, 0, 6, 2.5]]
    )
    assert np.allclose(reference_vectors(settings(folder, prompt="q: ").model, ["", "abc"]), vectors)
    assert load_query_encoder(settings(folder, IMAGES)).takes == "text"
    cut = load_encoder(settings(folder, dimensions=4))
    assert cut.dimensions == 4
    assert np.allclose(cut.encode(cut.prepare(["abc"]).inputs), [[0, 0, 0, 1]])
    with pytest.raises(ModelError, match=r"model.dimensions: 6 is more than the 5"):
        load(folder, dimensions=6)


def test_a_large_image_waits_as_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = load_encoder(settings(make_model(tmp_path / "model"), IMAGES))
    content = written(photograph("coffee.png"), "PNG")
    before = encoder.encode(encoder.prepare([ImageItem(content)]).inputs)
    monkeypatch.setattr(user_model, "KEPT_PIXELS", 1000)
    inputs = encoder.prepare([ImageItem(content)]).inputs
    assert inputs[0]["image"] == content
    assert np.array_equal(encoder.encode(inputs), before)


def test_two_models_with_files_of_the_same_names(tmp_path: Path) -> None:
    one, two = make_model(tmp_path / "one"), make_model(tmp_path / "two")
    (two / "colours.py").write_text("def mean_colour(image): return [7.0, 7.0, 7.0]")
    vectors = [
        load(folder, normalize=False).encode([{"image": None, "text": ""}]) for folder in (one, two, one)
    ]
    assert [vector[0, 0] for vector in vectors] == [0, 7, 0]


@pytest.mark.parametrize(
    ("code", "config", "expected"),
    [
        (with_encode("[[1.0, 2.0]] * len(items)"), '{"batch_size": 5}', 5),
        (with_encode("np.ones((len(items), 2))"), "{}", 16),
        (with_encode("[np.ones(2)] * len(items)", "batch_size = 4"), '{"batch_size": 5}', 4),
    ],
)
def test_the_batch_size_is_the_classs_else_the_configs(
    code: str, config: str, expected: int, tmp_path: Path
) -> None:
    assert load(make_model(tmp_path / "model", code, config)).batch_records == expected


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (
            "import nowhere_to_be_found  # ModelImpl",
            "cannot be loaded: its model.py raised ModuleNotFoundError",
        ),
        ("ModelImplementation = 1\nModelImpl_ = 2  # ModelImpl", "defines no class ModelImpl"),
        ("raise SystemExit('ModelImpl')", "cannot be loaded: its model.py raised SystemExit"),
        (with_encode("1 / 0"), "cannot embed a plain text: its model.py raised ZeroDivisionError"),
        (with_encode("[[1.0]] * 2"), r"shape \(2, 1\) for 1 records; it must be \(1, dimensions\)"),
        (with_encode("np.ones(3)"), r"shape \(3,\) for 1 records"),
        (with_encode("[['a', 'b']]"), "encode gave list, which are no vectors of one length"),
        (with_encode("None"), "encode gave NoneType"),
        (with_encode("[[1.0]]", "batch_size = 0"), "batch_size is 0; it must be at least 1"),
        (with_encode("[[1.0]]", "batch_size = 'many'"), "does not tell its batch size"),
    ],
)
def test_what_is_wrong_is_told_before_any_record_is_read(code: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=says):
        load(make_model(tmp_path / "model", code))


def test_answers_that_fit_no_longer_are_errors_of_their_batch(tmp_path: Path) -> None:
    code = with_encode("[[1.0, 2.0] if item['text'] != 'wide' else [1.0] * 3 for item in items]")
    encoder = load(make_model(tmp_path / "model", code))
    with pytest.raises(ModelError, match="no vectors of one length"):
        encoder.encode(encoder.prepare(["a", "wide"]).inputs)
    with pytest.raises(ModelError, match="vectors of 3 dimensions, before of 2"):
        encoder.encode(encoder.prepare(["wide"]).inputs)
    code = with_encode("[[float('nan') if item['text'] == 'nan' else 0.0, 0.0] for item in items]")
    encoder = load(make_model(tmp_path / "nan", code))
    vectors = encoder.encode(encoder.prepare(["a", "nan"]).inputs)
    assert vectors[0].tolist() == [0, 0]  # the worker tells both apart
    assert np.isnan(vectors[1]).any()


def test_a_model_that_asks_for_captions_loses_only_images_without_one(tmp_path: Path) -> None:
    folder = make_model(
        tmp_path / "model", with_encode("[[float(len(item['text'])), 1.0] for item in items]")
    )
    encoder = load_encoder(settings(folder, IMAGES, normalize=False))
    image = written(Image.new("RGB", (9, 6)), "PNG")
    captioned, bare = encoder.prepare([ImageItem(image, "abc"), ImageItem(image)]).inputs
    assert encoder.encode([captioned]).tolist() == [[3.0, 1.0]]
    with pytest.raises(TypeError):
        encoder.encode([bare])


def test_files_beside_it_are_imported_relatively_too(tmp_path: Path) -> None:
    code = COLOURS.replace("from colours import", "from .colours import")
    assert load(make_model(tmp_path / "model", code)).dimensions == 5


def test_an_exit_from_encode_is_an_error_of_its_batch(tmp_path: Path) -> None:
    code = with_encode("[[1.0] if item['text'] != 'out' else exit(3) for item in items]")
    encoder = load(make_model(tmp_path / "model", code))
    with pytest.raises(ModelError, match="encode ended by SystemExit: 3"):
        encoder.encode(encoder.prepare(["out"]).inputs)


def test_nothing_runs_unless_it_is_trusted(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model", "open('ran', 'w')  # class ModelImpl")
    untrusted = settings(folder, trust_remote_code=False)
    for attempt in (fingerprint, load_encoder, load_query_encoder):
        with pytest.raises(ModelError, match=r"model.trust_remote_code: true \(--trust-remote-code\)"):
            attempt(untrusted)
    assert not Path("ran").exists()
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match=r"lies no config.json"):
        fingerprint(settings(folder))


def test_every_file_may_decide_and_captions_do(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model")
    known = {fingerprint(settings(folder, IMAGES))}
    (folder / "README.md").write_text("words")
    load(folder)  # leaves compiled code behind
    assert fingerprint(settings(folder, IMAGES)) in known
    for name in ("model.py", "colours.py", "config.json", "weights.pt", "deep/tables.bin"):
        with (folder / name).open("a") as file:
            file.write(" ")
        known.add(fingerprint(settings(folder, IMAGES)))
    known.add(fingerprint(settings(folder, {**IMAGES, "text_column": "title"})))
    known.add(fingerprint(settings(folder)))
    assert len(known) == 8


def test_decoded_images_are_whole_images(tmp_path: Path) -> None:
    """A model of its own sees what Pillow sees, not a reduced scale."""
    encoder = load_encoder(settings(make_model(tmp_path / "model"), IMAGES))
    content = written(photograph("coffee.png", 1200), "JPEG")
    assert encoder.prepare([ImageItem(content)]).inputs[0]["image"].size == Image.open(BytesIO(content)).size
