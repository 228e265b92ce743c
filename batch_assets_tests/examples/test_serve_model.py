"""The example's server gives the vectors that `gpu` would store, in OpenAI's shapes."""

import base64
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import requests

from batch_assets.encoders.text import TextEncoder
from batch_assets.settings.model import ModelSettings
from batch_assets_tests.waiting import PATIENCE_SECONDS

SERVER = Path(__file__).parents[2] / "examples" / "serve_model.py"
TEXTS = [f"text {number} " + "word " * (number % 7) for number in range(40)]


def test_it_serves_the_vectors_of_the_encoder(tiny_model: Path, tmp_path: Path) -> None:
    encoder = TextEncoder.load(ModelSettings(id=str(tiny_model)), device="cpu")
    prepared = encoder.prepare(TEXTS)
    expected = encoder.encode(prepared.inputs)
    pid_file = tmp_path / "server.pid"
    command = [sys.executable, str(SERVER), "--port", "0", "--model", str(tiny_model)]
    with subprocess.Popen(
        [*command, "--pid-file", str(pid_file)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(SERVER.parents[1]), "CUDA_VISIBLE_DEVICES": ""},
    ) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().split()[-1]
            assert int(pid_file.read_text()) == process.pid

            def embed(**body: Any) -> requests.Response:
                body = {"model": str(tiny_model), **body}
                return requests.post(f"{url}/v1/embeddings", json=body, timeout=PATIENCE_SECONDS)

            assert requests.get(f"{url}/health", timeout=PATIENCE_SECONDS).status_code == 200
            models = requests.get(f"{url}/v1/models", timeout=PATIENCE_SECONDS).json()["data"]
            assert [(model["id"], model["root"]) for model in models] == [(str(tiny_model), str(tiny_model))]

            plain = embed(input=TEXTS).json()
            found = np.array([item["embedding"] for item in plain["data"]])
            np.testing.assert_allclose(found, expected, atol=1e-5)
            assert plain["usage"]["prompt_tokens"] == prepared.counts.sum()

            with ThreadPoolExecutor(8) as pool:  # calls that are computed together
                answers = list(
                    pool.map(lambda text: embed(input=text, encoding_format="base64").json(), TEXTS)
                )
            found = np.array(
                [np.frombuffer(base64.b64decode(each["data"][0]["embedding"]), "<f4") for each in answers]
            )
            np.testing.assert_allclose(found, expected, atol=1e-5)
            assert [each["usage"]["prompt_tokens"] for each in answers] == prepared.counts.tolist()

            short = np.array(embed(input=TEXTS[:1], dimensions=8).json()["data"][0]["embedding"])
            np.testing.assert_allclose(short, expected[0, :8] / np.linalg.norm(expected[0, :8]), atol=1e-5)

            unknown = embed(model="other", input="text")
            assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")
            for wrong in (
                {"input": []},
                {"input": ["text", ""]},
                {},
                {"input": "text", "dimensions": 10_000},
            ):
                refused = embed(**wrong)
                assert refused.status_code == 400
                assert set(refused.json()["error"]) == {"message", "type", "param", "code"}
            assert embed(input="text").status_code == 200
        finally:
            process.terminate()
    assert process.returncode == 0
