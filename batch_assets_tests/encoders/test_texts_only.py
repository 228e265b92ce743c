"""A text that looks like an image's URL, or its file, is embedded as a text: nothing is fetched or opened."""

import base64
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import transformers

from batch_assets.encoders.feeding import LibraryFeed
from batch_assets.encoders.loading import load_model
from batch_assets.encoders.reference import reference_vectors
from batch_assets.encoders.text import TextEncoder
from batch_assets.executors.gpu import GpuMachine
from batch_assets.settings.model import ModelSettings
from batch_assets.settings.pipeline import parse_pipeline
from batch_assets_tests.builders import make_tiny_clip
from batch_assets_tests.encoders.test_text import encode, lowest_cosine
from batch_assets_tests.pictures import image_file


class Site(ThreadingHTTPServer):
    """Gives an image for every path; `asked` are the paths."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.asked: list[str] = []


class _Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Site)
        self.server.asked.append(self.path)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(image_file(0))

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def texts(site: Site, tmp_path: Path) -> list[str]:
    """What sentence-transformers takes for an image where it may."""
    file = tmp_path / "cat.jpg"
    file.write_bytes(image_file(1))
    written = base64.b64encode(image_file(2)).decode()
    return [
        f"http://127.0.0.1:{site.server_port}/cat.jpg",
        str(file),
        f"data:image/jpeg;base64,{written[:200]}",
    ]


@pytest.fixture
def model(tmp_path: Path) -> ModelSettings:
    return ModelSettings(id=str(make_tiny_clip(tmp_path / "clip")), dtype="float32")


def by_transformers(folder: str, texts: list[str]) -> np.ndarray:
    tower = transformers.AutoModel.from_pretrained(folder).eval()
    tokens = transformers.AutoTokenizer.from_pretrained(folder)(
        texts, padding=True, truncation=True, return_tensors="pt"
    )
    return tower.get_text_features(**tokens).pooler_output.detach().numpy()


def test_records_are_embedded_as_texts(model: ModelSettings, texts: list[str], site: Site) -> None:
    expected = by_transformers(model.id, texts)
    assert lowest_cosine(encode(TextEncoder.load(model, device="cpu"), texts), expected) > 0.99999
    assert site.asked == []


def test_so_does_the_reference_of_the_parity_check(
    model: ModelSettings, texts: list[str], site: Site
) -> None:
    assert lowest_cosine(reference_vectors(model, texts), by_transformers(model.id, texts)) > 0.99999
    assert site.asked == []


def test_so_does_the_way_of_models_that_only_their_library_can_feed(
    model: ModelSettings, texts: list[str], site: Site
) -> None:
    feed = LibraryFeed(load_model(model, "cpu", "float32"), None)
    features = feed.features(feed.prepare(texts).inputs)
    assert features["modality"] == "text"
    assert "pixel_values" not in features
    assert site.asked == []


def test_so_does_a_query(model: ModelSettings, texts: list[str], site: Site) -> None:
    values = {"source": {"uri": "in"}, "model": model.model_dump(), "output": {"root": "out"}}
    settings = parse_pipeline(values, "texts", "a test")
    vector = GpuMachine(device="cpu").embed_query(settings, texts[0])
    assert lowest_cosine(vector[None], by_transformers(model.id, texts[:1])) > 0.99999
    assert site.asked == []
