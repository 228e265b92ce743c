"""What gates let pass by share and by number, and several of them one behind the other."""

import asyncio
from collections.abc import Sequence

import pytest

from batch_assets.dispatch.gates.base import Gate, Held, admit_all
from batch_assets.dispatch.gates.quota import QuotaGate
from batch_assets.dispatch.gates.shares import ConcurrencyGate, SaturationGate, ShareGate
from batch_assets.dispatch.messages import Message
from batch_assets.dispatch.metrics import Metrics
from batch_assets_tests.dispatch.gates.given import INFINITE, message


@pytest.mark.parametrize(
    ("share", "window", "room"),
    [(0, 100, 0), (0.25, 100, 25), (0.25, 101, 26), (0.001, 8, 1), (1, 8, INFINITE), (0.5, 1, 1)],
)
def test_a_share_of_the_window_passes(share: float, window: int, room: float) -> None:
    assert ShareGate("g", share, lambda: window).room() == room


def test_a_share_follows_the_window_and_what_is_under_way() -> None:
    window = 10
    gate = ShareGate("g", 0.5, lambda: window)
    under_way = [message() for _ in range(4)]
    for each in under_way:
        assert gate.admit(each) is None
    assert gate.room() == 1
    window = 4
    assert gate.room() == 0, "less than is under way: nothing more"
    window = 100
    assert gate.room() == 46
    for each in under_way:
        gate.release(each)
    assert gate.room() == 50


def test_what_is_under_way_grows_while_something_of_the_server_is_free() -> None:
    share = 0.5

    async def read() -> float:
        return share

    async def look_and_fill() -> int:
        await gate.look()
        room = gate.room()
        while gate.room() >= 1:
            under_way.append(message())
            gate.admit(under_way[-1])
        return int(room)

    def never() -> int:
        raise AssertionError("the window is not this gate's matter")

    gate = SaturationGate("g", read, never, Metrics(), lambda: None, every_seconds=1)
    under_way: list[Message] = []
    assert gate.room() == 0, "closed until something was read"
    assert [asyncio.run(look_and_fill()) for _ in range(6)] == [1, 1, 1, 1, 2, 3]
    gate.release(under_way.pop())
    assert gate.room() == 1, "what has ended makes room for another"
    share = 0.01
    assert asyncio.run(look_and_fill()) == 1
    share = 0.0
    gate.release(under_way.pop())
    assert asyncio.run(look_and_fill()) == 0, "nothing while the server is full"
    gate.release(under_way.pop())
    assert gate.room() == 0
    share = 1.0
    asyncio.run(gate.look())
    assert gate.room() == INFINITE, "an empty server is the window's matter alone"


def test_so_many_at_a_time() -> None:
    gate = ConcurrencyGate("g", 2)
    first, second = message(), message()
    assert gate.room() == 2
    gate.admit(first)
    gate.admit(second)
    assert gate.room() == 0
    gate.release(first)
    assert gate.room() == 1


def test_what_one_gate_holds_back_occupies_no_other() -> None:
    number, first, second = ConcurrencyGate("n", 5), QuotaGate("q", 1), QuotaGate("r", 1)
    gates: Sequence[Gate] = [number, first, second]
    passed, held, other = message("u"), message("u"), message("v")
    assert admit_all(gates, passed) is None
    found = admit_all([number, second, first], held)
    assert found is not None and found[0] is second
    assert isinstance(found[1], Held) and found[1].seconds > 0
    assert number.room() == 4
    assert admit_all(gates, other) is None
    for gate in gates:
        gate.release(passed)
    assert admit_all(gates, held) is None
    assert number.room() == 3


def test_the_last_of_several_gates_frees_those_before_it() -> None:
    number, quota = ConcurrencyGate("n", 5), QuotaGate("q", 1)
    assert admit_all([quota], message("u")) is None
    assert admit_all([number, quota], message("u")) is not None
    assert number.room() == 5
