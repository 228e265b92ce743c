r"""Text that others wrote, made fit to be shown: records, file names, messages of services.

A terminal obeys what it is shown: escape sequences move the cursor, name the window, hide what stands
there. A line break forges a line of a log. So control characters are written out before text leaves for
a terminal, a log, a page or a message: ESC as the four characters `\x1b`, a line break as `\n`. Data is
left alone: what goes into files and into JSON stays what it was.
"""

import logging
import re
import sys
import threading
import traceback
from types import TracebackType
from typing import Any

QUOTED_CHARACTERS = 200

# C0, DEL and C1; line and paragraph separators; what turns the direction of writing; surrogates, which are in
# file names that are no UTF-8, and which no stream of UTF-8 takes. Joiners stay: emoji and whole scripts need them.
_OBEYED = r"\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff"
_ON_A_LINE = re.compile(f"[{_OBEYED}]")
_ON_LINES = re.compile(f"(?![\n\t])[{_OBEYED}]")


def plain_text(text: str) -> str:
    """`text` on one line, its control characters written out."""
    return _ON_A_LINE.sub(_written_out, text)


def quoted(value: object) -> str:
    """`value` as a message quotes it: as Python writes it down, cut where that is long."""
    try:
        text = repr(value)
    except ValueError:  # a number of more digits than Python writes down
        return "what is too large to be shown"
    return text if len(text) <= QUOTED_CHARACTERS else text[: QUOTED_CHARACTERS - 1] + "…"


def plain_lines(text: str) -> str:
    """The same where several lines are meant, such as a traceback: line breaks and tabs stay."""
    return _ON_LINES.sub(_written_out, text)


def show_tracebacks_plainly() -> None:
    """Have what no one caught, in any thread of this process, shown without control characters."""
    sys.excepthook = _show_traceback
    threading.excepthook = lambda told: _show_traceback(told.exc_type, told.exc_value, told.exc_traceback)


def _show_traceback(
    kind: type[BaseException], error: BaseException | None, trace: TracebackType | None
) -> None:
    if kind is not SystemExit:  # which ends a thread without a word
        sys.stderr.write(plain_lines("".join(traceback.format_exception(kind, error, trace))))


def _written_out(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode("ascii")


def plain_logger(name: str) -> logging.Logger:
    """The logger of a module of this package: its messages are one line each, whoever's handlers write them."""
    logger = logging.getLogger(name)
    logger.addFilter(_make_plain)
    return logger


def _make_plain(record: logging.LogRecord) -> bool:
    record.msg, record.args = plain_text(record.getMessage()), None
    return True


class PlainFormatter(logging.Formatter):
    """Log lines: a message is one line, whatever it was made of; a traceback keeps its own."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        record.message = plain_text(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802
        return plain_lines(super().formatException(ei))


def first_line(error: BaseException) -> str:
    """The first line of what an error says; its kind where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
