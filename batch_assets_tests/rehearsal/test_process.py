"""The rehearsal as its own process, reached by the environment alone; its control page; scenarios."""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest

from batch_assets.errors import ConfigurationError
from batch_assets.rehearsal.faults import Scenario
from batch_assets.rehearsal.vectors import count_tokens, embed
from batch_assets_tests.rehearsal.aws import ROLE, TITAN, aws, request
from batch_assets_tests.waiting import PATIENCE_SECONDS, wait_until


def page(endpoint: str, path: str, content: Any = None) -> Any:
    data = None if content is None else json.dumps(content).encode()
    with urllib.request.urlopen(f"{endpoint}/_rehearsal/{path}", data) as reply:
        return json.loads(reply.read())


def test_a_process_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = tmp_path / "scenario.yaml"
    scenario.write_text("quotas: {min_records: 1}\ntiming: {running: [600, 600]}\n")
    command = [sys.executable, "-m", "batch_assets.rehearsal", "--scenario", str(scenario), "--speed", "2000"]
    process = subprocess.Popen(
        [*command, "--books", str(tmp_path / "books.json")], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        endpoint = process.stdout.readline().strip()
        assert endpoint.startswith("http://127.0.0.1:")
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        s3, bedrock = boto3.client("s3"), boto3.client("bedrock")
        s3.create_bucket(Bucket="processes")
        s3.put_object(Bucket="processes", Key="in/a.jsonl", Body=json.dumps(request(1)))
        arn = bedrock.create_model_invocation_job(
            jobName="one", roleArn=ROLE, modelId=TITAN,
            inputDataConfig={"s3InputDataConfig": {"s3Uri": "s3://processes/in/"}},
            outputDataConfig={"s3OutputDataConfig": {"s3Uri": "s3://processes/out/"}},
        )["jobArn"]  # fmt: skip
        wait_until(
            lambda: bedrock.get_model_invocation_job(jobIdentifier=arn)["status"] == "Completed",
            lambda: bedrock.get_model_invocation_job(jobIdentifier=arn),
        )
        assert page(endpoint, "jobs")[0]["status"] == "Completed"
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_SECONDS) == 0
    assert json.loads((tmp_path / "books.json").read_text())["records"]["paid"] == 1


def test_a_scenario_that_cannot_be_read_ends_the_process_in_words(tmp_path: Path) -> None:
    scenario = tmp_path / "scenario.yaml"
    scenario.write_text("calls: {throtled: 0.1}\n")
    done = subprocess.run(
        [sys.executable, "-m", "batch_assets.rehearsal", "--scenario", str(scenario)],
        capture_output=True, text=True, check=False, env=os.environ,
    )  # fmt: skip
    assert done.returncode == 2 and "throtled" in done.stderr


def test_control_pages() -> None:
    with aws() as cloud:
        endpoint = cloud.server.endpoint
        assert page(endpoint, "scenario")["calls"]["throttled"] == 0
        changed = page(
            endpoint, "scenario", {"calls": {"throttled": 0.5, "per_second": {"GetModelInvocationJob": 1}}}
        )
        assert changed["calls"]["throttled"] == 0.5 and changed["quotas"]["min_records"] == 1
        assert cloud.server.scenario.calls.per_second == {"GetModelInvocationJob": 1}
        before = page(endpoint, "clock")
        after = page(endpoint, "clock", {"advance": 3600})
        assert before["speed"] == 0 and after["now"] - before["now"] == pytest.approx(3600)
        assert page(endpoint, "books")["records"]["paid"] == 0
        for path, content, status in (
            ("nothing", None, 404), ("scenario", {"calls": {"throttled": 2}}, 400), ("clock", {"back": 1}, 400),
        ):  # fmt: skip
            with pytest.raises(urllib.error.HTTPError) as error:
                page(endpoint, path, content)
            assert error.value.code == status


def test_scenarios() -> None:
    assert Scenario.load("calm") == Scenario()
    stormy = Scenario.load("stormy")
    assert stormy.output.late > 0 and Scenario.of(stormy.model_dump()) == stormy
    with pytest.raises(ConfigurationError, match="calm or stormy"):
        Scenario.load("no-such-file.yaml")


def test_vectors() -> None:
    texts = ["the cat sat on the mat", "the cat sat on a mat", "shares fell sharply on monday", " "]
    vectors = embed(texts, 256)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert vectors[0] @ vectors[1] > 0.8 > abs(vectors[0] @ vectors[2]) + 0.3
    assert np.array_equal(embed(texts[1:2], 256)[0], vectors[1]) or np.allclose(
        embed(texts[1:2], 256)[0], vectors[1]
    )
    for text in ("a", "word " * 100, "語" * 50):
        assert 1 <= count_tokens(text) <= len(text.encode())
