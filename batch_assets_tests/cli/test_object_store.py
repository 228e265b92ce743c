"""The command with its records and its output on S3: moto's server, real processes."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batch_assets_tests.command import Machine, accounting_of, make_machine, some_records, write_records
from batch_assets_tests.object_store import s3_server, use_s3

ODD = "s3://bucket/Out put/ü+%20&=#?"


@pytest.fixture
def endpoint() -> Iterator[str]:
    with s3_server() as endpoint:
        yield endpoint


@pytest.fixture
def client(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    return use_s3(endpoint, monkeypatch)


@pytest.fixture
def machine(tmp_path: Path, client: Any) -> Machine:
    return on_aws(tmp_path / "home")


def on_aws(home: Path, **changes: str) -> Machine:
    """A machine with the AWS settings of this process, changed."""
    aws = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    return make_machine(home, **(aws | changes))


def markers(client: Any) -> dict[str, str]:
    """The entity tag of every commit marker in the bucket."""
    listed = client.list_objects_v2(Bucket="bucket").get("Contents", [])
    return {found["Key"]: found["ETag"] for found in listed if found["Key"].endswith("/shard.json")}


def test_killed_on_s3_another_machine_goes_on(
    machine: Machine, client: Any, tmp_path: Path, tiny_model: Path
) -> None:
    write_records(tmp_path / "in.jsonl", some_records(1500))
    client.upload_file(str(tmp_path / "in.jsonl"), "bucket", "in/texts.jsonl")
    command = [
        "run", "--input", "s3://bucket/in/", "--output", ODD, "--model", tiny_model,
        "--id-column", "id", "--dtype", "float32", "--shard-records", 100,
    ]  # fmt: skip
    process = machine.start(*command)
    process.wait_until(lambda: len(markers(client)) >= 3, "no three shards are committed")
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    before = markers(client)
    assert len(before) >= 3
    elsewhere = on_aws(tmp_path / "another_home")  # whose ledger is empty
    result = elsewhere.run(*command)
    assert result.returncode == 0, result.stderr
    assert accounting_of(result) == (1500, 1500, 0, 0)
    after = markers(client)
    assert len(after) == 15
    assert {key: after[key] for key in before} == before, "a committed shard was computed again"
    assert accounting_of(elsewhere.run("verify", ODD + "/")) == (1500, 1500, 0, 0)
    assert '"collected":15' in elsewhere.run("status", ODD, "--json").stdout


@pytest.mark.parametrize(
    ("source", "output", "changes", "code", "said"),
    [
        ("s3://bucket/in", "s3://nobody/out", {}, 2, "no such bucket"),
        ("s3://nobody/in", "s3://bucket/out", {}, 2, "no such bucket"),
        ("s3://bucket/nothing", "s3://bucket/out", {}, 2, "no files"),
        ("s3://bucket/in", "s3://bucket/out", {"AWS_ACCESS_KEY_ID": ""}, 2, "no AWS credentials"),
        ("s3://bucket/in", "s3://bucket/out", {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, 1, "check the network"),
        ("s3://bucket/in", "s3://bucket/out", {"AWS_ENDPOINT_URL": "localhost"}, 2, "is no URL"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_one_sentence(
    client: Any,
    tmp_path: Path,
    tiny_model: Path,
    source: str,
    output: str,
    changes: dict[str, str],
    code: int,
    said: str,
) -> None:
    client.put_object(Bucket="bucket", Key="in/texts.jsonl", Body=b'{"text": "a"}\n')
    # No credentials of the tester's own, nor of the machine it runs on.
    hidden = {"HOME": str(tmp_path), "AWS_EC2_METADATA_DISABLED": "true"}
    machine = on_aws(tmp_path / "home", **hidden, **changes)
    result = machine.run("run", "--input", source, "--output", output, "--model", tiny_model)
    assert result.returncode == code, result.stderr
    home, *told = result.stderr.splitlines()
    assert "home" in home and said in told[-1]
    assert all("trying again" in word for word in told[:-1])  # while it is waited for
    assert client.list_objects_v2(Bucket="bucket")["KeyCount"] == 1
