"""A batch of five hundred calls by OpenAI's official client, over a kill of the server: what `make demo-batches` runs.

    python examples/requests/batches_demo.py DOCSTRINGS

It starts `batch-assets serve` on this machine, uploads a file, makes a batch of it, kills the server by SIGKILL while
the batch is in progress, starts it again, and reads the batch's output file.
"""

import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.request import urlopen

from openai import OpenAI
from openai.types import Batch

CALLS = 500
PORT = 8403
URL = f"http://127.0.0.1:{PORT}"
SECONDS = 600
TOKEN = secrets.token_hex(32)
COMMAND = Path(sys.executable).with_name("batch-assets")
ENDED = ("completed", "failed", "expired", "cancelled")


def main() -> None:
    """Run the demo; exits 1 where a call is lost."""
    client = OpenAI(base_url=f"{URL}/v1", api_key=TOKEN)
    server = start_server()
    try:
        with tempfile.NamedTemporaryFile(suffix=".jsonl") as file:
            write_calls(Path(sys.argv[1]), Path(file.name))
            uploaded = client.files.create(file=Path(file.name), purpose="batch")
        batch = client.batches.create(
            input_file_id=uploaded.id, endpoint="/v1/embeddings", completion_window="24h"
        )
        batch = wait(client, batch, "in_progress", *ENDED)
        server.kill()
        server.wait()
        print(f"the server was killed while {batch.id} was {batch.status}; it starts again", flush=True)
        server = start_server()
        batch = wait(client, batch, *ENDED)
        report(client, batch)
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait()


def write_calls(docstrings: Path, path: Path) -> None:
    """One call a line, each with a custom_id of its own."""
    lines = (line for file in sorted(docstrings.glob("*.jsonl")) for line in file.open())
    with path.open("w") as file:
        for _, line in zip(range(CALLS), lines, strict=False):
            record = json.loads(line)
            call = {
                "custom_id": record["id"],
                "method": "POST",
                "url": "/v1/embeddings",
                "body": {"model": "asks", "input": record["text"]},
            }
            file.write(json.dumps(call) + "\n")


def start_server() -> "subprocess.Popen[bytes]":
    """The server as a process of its own, once it listens."""
    environment = {**os.environ, "BATCH_ASSETS_TOKEN": TOKEN}
    command = [COMMAND, "serve", "--port", str(PORT), "--defs", "examples/requests"]
    server = subprocess.Popen(command, env=environment)
    deadline = time.monotonic() + SECONDS
    while not listens():
        if server.poll() is not None or time.monotonic() > deadline:
            sys.exit("the server does not start; what it said stands above")
        time.sleep(0.05)
    return server


def listens() -> bool:
    """Whether the server answers."""
    try:
        return bool(urlopen(f"{URL}/health", timeout=5).status == 200)
    except OSError:
        return False


def wait(client: OpenAI, batch: Batch, *statuses: str) -> Batch:
    """The batch, once it has one of these statuses."""
    deadline = time.monotonic() + SECONDS
    while batch.status not in statuses and time.monotonic() < deadline:
        time.sleep(0.05)
        batch = client.batches.retrieve(batch.id)
    return batch


def report(client: OpenAI, batch: Batch) -> None:
    """Account for all calls, and show three results."""
    lines = []
    if batch.output_file_id is not None:
        lines = [json.loads(line) for line in client.files.content(batch.output_file_id).text.splitlines()]
    for line in lines[:3]:
        vector = line["response"]["body"]["data"][0]["embedding"]
        shown = ", ".join(f"{number:.4f}" for number in vector[:4])
        print(f"  {line['custom_id']}: {len(vector)} numbers, {shown}, …")
    counts, usage = batch.request_counts, batch.usage
    assert counts is not None, batch
    assert usage is not None, batch
    print(
        f"batch: {batch.status} total={counts.total} completed={counts.completed} failed={counts.failed} "
        f"lost={CALLS - counts.completed - counts.failed} tokens={usage.total_tokens}",
        flush=True,
    )
    subprocess.run([COMMAND, "status", "asks", "--defs", "examples/requests"], check=True)
    if len({line["custom_id"] for line in lines}) != CALLS or counts.completed != CALLS:
        sys.exit(1)


if __name__ == "__main__":
    main()
