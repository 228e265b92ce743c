"""What the worker says while it runs: one JSON object a line, or plain lines in a terminal."""

import contextlib
import datetime
import json
import logging
from collections.abc import Iterator

from batch_assets.cli.console import errors
from batch_assets.plain_text import PlainFormatter


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        told = {
            "time": datetime.datetime.fromtimestamp(record.created, datetime.UTC).isoformat(
                timespec="milliseconds"
            ),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            told["error"] = self.formatException(record.exc_info)
        return json.dumps(told)


class _Terminal(logging.Handler):
    """Lines above whatever else is shown there."""

    def emit(self, record: logging.LogRecord) -> None:
        errors.print(self.format(record), soft_wrap=True)


@contextlib.contextmanager
def log_lines() -> Iterator[None]:
    """Have the block's log on stderr: for people in a terminal, for machines elsewhere."""
    root = logging.getLogger()
    before = root.handlers[:]
    handler = _Terminal() if errors.is_terminal else logging.StreamHandler()
    handler.setFormatter(PlainFormatter("%(message)s") if errors.is_terminal else _JsonLines())
    root.handlers[:] = [handler]
    try:
        yield
    finally:
        root.handlers[:] = before
