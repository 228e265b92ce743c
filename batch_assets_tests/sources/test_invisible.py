"""A text in which nobody could see anything is no text."""

import pytest

from batch_assets.sources.base import Fault
from batch_assets.sources.texts import TextRule

INVISIBLE = {
    "zero-width": "\u200b\u200c\u200d\u2060",
    "direction": "\u200e\u202a\u202c\u2066\u2069\u061c",
    "byte-order marks": "\ufeff\ufeff",
    "soft hyphens": "\u00ad \u00ad",
    "control characters": "\x00\x01\x1b\x7f\x80",
    "variation selectors": "\ufe0f\U000e0100",
    "tags": "\U000e0020\U000e007f",
    "Hangul fillers": "\u115f\u1160\u3164\uffa0",
    "blank Braille": "\u2800\u2800",
    "Mongolian": "\u180e\u180b",
    "annotation": "\ufff9\ufffa\ufffb",
    "among white space": " \n\u200b\t",
}


@pytest.mark.parametrize("name", INVISIBLE)
def test_it_is_rejected(name: str) -> None:
    text = INVISIBLE[name]
    for found in (TextRule("text", None)({"text": text}), TextRule(None, "{text}\n{text}")({"text": text})):
        assert isinstance(found, Fault)
        assert found.code == "invisible_text"
        assert "U+" in found.message


def test_white_space_alone_is_an_empty_text() -> None:
    for text in ("", " ", "\t\n\u00a0\u2003\u2028"):
        found = TextRule("text", None)({"text": text})
        assert isinstance(found, Fault)
        assert (found.code, found.message) == (
            "empty_text",
            "column 'text' is empty or only white space",
        )


@pytest.mark.parametrize(
    "text",
    ["a", "!", "~", "\ufeffa", "\u200b漢", "\u0301", "\ue000", "٣", "\u0600", "❤\ufe0f", "\ufffd", "\u2801"],
)
def test_what_can_be_seen_is_kept_as_it_is(text: str) -> None:
    assert TextRule("text", None)({"text": text}) == text
