"""Processes that begin the same thing at the same moment, and what they say."""

from collections.abc import Callable
from contextlib import closing
from multiprocessing.connection import Connection, wait
from multiprocessing.synchronize import Barrier
from typing import Any

from batch_assets_tests.forking import forking
from batch_assets_tests.waiting import PATIENCE_SECONDS

Work = Callable[[str, Barrier, Connection], None]


def run_together(work: Work, url: str, count: int) -> list[Any]:
    """Run `work` in so many processes, which wait for each other at a barrier; all that they send, in any order.

    Each closes its connection, or ends, when it has nothing more to say. Raises AssertionError where one fails.
    """
    context = forking()
    start, said = context.Barrier(count, timeout=PATIENCE_SECONDS), list[Any]()
    ends, processes = list[Connection](), []
    for _ in range(count):
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=work, args=(url, start, theirs), daemon=True)
        process.start()
        theirs.close()  # the process's own is the last: its end is seen
        ends.append(ours)
        processes.append(process)
    open_ends: list[Any] = list(ends)
    while open_ends:
        for end in wait(open_ends):
            try:
                said.append(end.recv())  # type: ignore[union-attr]
            except EOFError:
                open_ends.remove(end)
    for process in processes:
        process.join(PATIENCE_SECONDS)
    for end in ends:
        with closing(end):
            pass
    assert [process.exitcode for process in processes] == [0] * count
    return said
