"""What tests of gates have in common: messages of tenants, and a clock that tests set."""

import json

from batch_assets.dispatch.messages import Message, parse

INFINITE = float("inf")


class Clock:
    """Time that passes when a test says so."""

    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def message(tenant: object = "u", name: str = "a") -> Message:
    metadata = {} if tenant is None else {"userid": tenant}
    return parse(json.dumps({"id": name, "payload": {"prompt": "a"}, "metadata": metadata}).encode())
