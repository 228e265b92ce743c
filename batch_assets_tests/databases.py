"""SQLite without waiting for the disk: tests end processes, not the power.

What a killed process has written is the operating system's and stays; `fsync` guards against losing the
machine, which no test does, and on a slow disk the suite would spend minutes on it.
"""

from typing import Any

import sqlalchemy as sa


@sa.event.listens_for(sa.Engine, "connect")
def _write_without_waiting(connection: Any, _record: Any) -> None:
    if "sqlite" in type(connection).__module__:
        connection.execute("PRAGMA synchronous=OFF").close()
