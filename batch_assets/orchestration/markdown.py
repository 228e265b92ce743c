"""Sentences as the Markdown that Dagster's UI shows: what they quote is text, neither HTML nor markup nor a line."""

import re
from collections.abc import Sequence
from html import escape, unescape

from batch_assets.plain_text import plain_text

NOTHING = "none"
_BULLET = "- "
_MARKUP = re.compile(r"[\\`*\[\]|~]")
_ESCAPED = re.compile(r"\\([\\`*\[\]|~])")


def markdown_text(text: str) -> str:
    """`text` on one line, shown as it is."""
    return _MARKUP.sub(r"\\\g<0>", escape(plain_text(text), quote=False))


def markdown_list(lines: Sequence[str]) -> str:
    """Sentences as a list; `none` where there is nothing to say."""
    return "\n".join(f"{_BULLET}{markdown_text(line)}" for line in lines) or NOTHING


def read_list(markdown: str) -> list[str]:
    """The sentences of such a list, each on one line."""
    lines = [line.removeprefix(_BULLET) for line in markdown.splitlines() if line.startswith(_BULLET)]
    return [unescape(_ESCAPED.sub(r"\1", line)) for line in lines]
