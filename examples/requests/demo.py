"""Five hundred single requests to a server that is killed in the middle: what `make demo-requests` runs.

    python examples/requests/demo.py DOCSTRINGS

It starts `batch-assets serve` on this machine, posts records by curl, each with a key of its own, kills the server by
SIGKILL half way, starts it again, and asks for every result by its id.
"""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

REQUESTS = 500
PORT = 8402
URL = f"http://127.0.0.1:{PORT}"
SECONDS = 600
TOKEN = secrets.token_hex(32)
COMMAND = Path(sys.executable).with_name("batch-assets")
ROUND = uuid.uuid4().hex
"""Of this run of the demo: the next one's requests are others."""


def main() -> None:
    """Run the demo; exits 1 where a request is lost."""
    if shutil.which("curl") is None:
        sys.exit("the demo posts with curl; install it (apt-get install curl) and run it again")
    records = list(read_records(Path(sys.argv[1])))
    server = start_server()
    try:
        with ThreadPoolExecutor(4) as pool:
            half = REQUESTS // 2
            first = list(pool.map(post, records[:half]))
            second = [pool.submit(post, record) for record in records[half:]]
            server.kill()
            server.wait()
            say(f"the server was killed after {len(first)} requests; it starts again while curl goes on")
            server = start_server()
            ids = [*first, *(one.result() for one in second)]
        again = post(records[0])
        say(f"a request that is repeated with its key is the same job: {again == ids[0]}")
        jobs = wait_for_results(ids)
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait()
    report(jobs, ids)


def read_records(folder: Path) -> Iterator[dict[str, Any]]:
    """The first docstrings."""
    lines = (line for file in sorted(folder.glob("*.jsonl")) for line in file.open())
    for _, line in zip(range(REQUESTS), lines, strict=False):
        yield json.loads(line)


def start_server() -> "subprocess.Popen[bytes]":
    """The server as a process of its own, once it listens."""
    environment = {**os.environ, "BATCH_ASSETS_TOKEN": TOKEN}
    server = subprocess.Popen(
        [COMMAND, "serve", "--port", str(PORT), "--defs", "examples/requests"], env=environment
    )
    deadline = time.monotonic() + SECONDS
    while not answers():
        if server.poll() is not None or time.monotonic() > deadline:
            sys.exit("the server does not start; what it said stands above")
        time.sleep(0.05)
    return server


def answers() -> bool:
    """Whether the server listens."""
    try:
        return bool(urlopen(f"{URL}/health", timeout=5).status == 200)
    except OSError:
        return False


def post(record: dict[str, Any]) -> str:
    """One record by curl, tried again while nobody answers; its job id."""
    command = [
        "curl",
        "--silent",
        "--show-error",
        "--retry",
        "60",
        "--retry-delay",
        "1",
        "--retry-all-errors",
    ]
    command += ["--header", f"Authorization: Bearer {TOKEN}", "--header", "Content-Type: application/json"]
    command += ["--header", f"Idempotency-Key: {ROUND} {record['id']}"]
    command += [
        "--data-binary",
        json.dumps({"text": record["text"], "name": record["id"]}),
        f"{URL}/job?pipeline=asks",
    ]
    said = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True).stdout
    return str(json.loads(said)["job_id"])


def wait_for_results(ids: list[str]) -> dict[str, Any]:
    """Each job, once it has ended."""
    jobs: dict[str, Any] = {}
    deadline = time.monotonic() + SECONDS
    for job_id in ids:
        while jobs.get(job_id, {}).get("status") not in ("completed", "failed"):
            if time.monotonic() > deadline:
                return jobs
            request = Request(f"{URL}/job/{job_id}", headers={"x-api-key": TOKEN})
            with urlopen(request, timeout=30) as answer:
                jobs[job_id] = json.load(answer)
            if jobs[job_id]["status"] in ("queued", "in_progress"):
                time.sleep(0.1)
    return jobs


def report(jobs: dict[str, Any], ids: list[str]) -> None:
    """Account for all requests, and show three results."""
    for job_id in ids[:3]:
        vector = jobs[job_id]["result"]["embedding"]
        say(f"  {job_id}: {len(vector)} numbers, {', '.join(f'{x:.4f}' for x in vector[:4])}, …")
    statuses = Counter(job["status"] for job in jobs.values())
    lost = REQUESTS - len(set(ids))
    say(
        f"requests: posted={REQUESTS} completed={statuses['completed']} failed={statuses['failed']} "
        f"lost={lost + len(set(ids)) - statuses['completed'] - statuses['failed']}"
    )
    subprocess.run([COMMAND, "status", "asks", "--defs", "examples/requests"], check=True)
    if lost or statuses["completed"] < REQUESTS:
        sys.exit(1)


def say(sentence: str) -> None:
    """One line of what goes on."""
    print(sentence, flush=True)


if __name__ == "__main__":
    main()
