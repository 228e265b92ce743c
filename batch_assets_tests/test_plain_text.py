"""Text of others is shown whole and obeyed by nothing."""

import io
import logging
import sys
import threading
from pathlib import Path

import pytest

from batch_assets.errors import ConfigurationError
from batch_assets.plain_text import (
    PlainFormatter,
    plain_lines,
    plain_logger,
    plain_text,
    show_tracebacks_plainly,
)

C0, C1 = [chr(number) for number in range(0x20)], [chr(number) for number in range(0x80, 0xA0)]
BIDI = [chr(number) for number in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))]
OBEYED = [*C0, *C1, *BIDI, "\x7f", "\u2028", "\u2029", "\udcff"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x1b[2J\x9b2J", r"\x1b[2J\x9b2J"),
        ("a\r\nb\0\x7f", r"a\r\nb\x00\x7f"),
        ("user\u202etxt.exe", r"user\u202etxt.exe"),
        ("no\udcffutf-8", r"no\udcffutf-8"),
    ],
)
def test_control_characters_are_written_out(text: str, shown: str) -> None:
    assert plain_text(text) == shown
    assert plain_text(shown) == shown


@pytest.mark.parametrize(
    "text", ["Füße, 北京, שלום, नमस्ते, می‌خواهم", "👩‍👧 🏳️‍🌈", r"C:\new\x1b", "[bold]<b>&amp;"]
)
def test_what_people_write_stays_as_it_is(text: str) -> None:
    assert plain_text(text) == text


def test_nothing_that_is_obeyed_is_left() -> None:
    everything = "".join(OBEYED)
    assert not set(plain_text(everything)) & set(OBEYED)
    assert set(plain_lines(everything)) & set(OBEYED) == {"\n", "\t"}


def test_an_error_is_one_line_whatever_it_names() -> None:
    error = ConfigurationError("in\n\x1b[31m.jsonl: cannot be read")
    assert str(error) == r"in\n\x1b[31m.jsonl: cannot be read"


def test_a_message_in_a_log_is_one_line_and_a_traceback_keeps_its_own() -> None:
    log = io.StringIO()
    handler = logging.StreamHandler(log)
    handler.setFormatter(PlainFormatter("%(levelname)s %(message)s"))
    logger = logging.Logger("texts")
    logger.addHandler(handler)
    try:
        raise ValueError("\x1b[2Jgone\nhere")
    except ValueError:
        logger.exception("shard %s failed", "a\nINFO all is well")
    first, *traceback = log.getvalue().splitlines()
    assert first == r"ERROR shard a\nINFO all is well failed"
    assert traceback[0].startswith("Traceback")
    assert traceback[-2:] == [r"ValueError: \x1b[2Jgone", "here"]


def test_what_no_thread_caught_is_shown_without_control_characters(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for place in (sys, threading):
        monkeypatch.setattr(place, "excepthook", place.excepthook)
    show_tracebacks_plainly()

    def fail() -> None:
        raise KeyError("\x9b2J", 1)

    def refuse() -> None:
        raise ValueError("in/\x1b[2J.jsonl")

    for work in (fail, refuse, sys.exit):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    sys.excepthook(ValueError, ValueError("\x07gone"), None)
    told = capsys.readouterr().err.splitlines()
    assert [line for line in told if line.startswith(("KeyError", "ValueError", "SystemExit"))] == [
        r"KeyError: ('\x9b2J', 1)",
        r"ValueError: in/\x1b[2J.jsonl",
        r"ValueError: \x07gone",
    ]


def test_a_modules_messages_are_plain_whoever_writes_them(caplog: pytest.LogCaptureFixture) -> None:
    """In Dagster's processes and in others' programs the handlers are theirs."""
    with caplog.at_level(logging.WARNING):
        plain_logger("batch_assets.somewhere").warning("%s: 5%% \x1b[2J", "a\nforged.jsonl")
    assert caplog.messages == [r"a\nforged.jsonl: 5% \x1b[2J"]


def test_every_module_logs_so() -> None:
    package = Path(__file__).parents[1] / "batch_assets"
    others = [path for path in package.rglob("*.py") if "logging.getLogger(__name__)" in path.read_text()]
    assert others == []
