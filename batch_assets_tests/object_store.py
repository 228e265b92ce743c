"""An S3 that runs on this machine, and the environment that leads to it."""

import contextlib
import functools
import threading
from collections.abc import Iterator
from typing import Any

import pytest


@contextlib.contextmanager
def s3_server() -> Iterator[str]:
    """The endpoint of a server on 127.0.0.1, which ends with the block."""
    from moto.server import ThreadedMotoServer

    _write_one_at_a_time()
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def _write_one_at_a_time() -> None:
    """Let moto look at a condition and write in one step, as S3 does: in two, of two writers at once both may win."""
    from moto.s3.responses import S3Response

    put = S3Response.put_object
    if hasattr(put, "__wrapped__"):
        return
    lock = threading.Lock()

    @functools.wraps(put)
    def put_alone(self: Any) -> Any:
        with lock:
            return put(self)

    S3Response.put_object = put_alone  # type: ignore[method-assign]


def use_s3(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Point the environment at the server and return a client; `bucket` exists there and is empty."""
    import boto3

    settings = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
    client.create_bucket(Bucket="bucket")
    for found in client.list_objects_v2(Bucket="bucket").get("Contents", []):
        client.delete_object(Bucket="bucket", Key=found["Key"])
    return client
