"""Texts in which a reader would see nothing, whatever they are made of.

The characters are Unicode's `Default_Ignorable_Code_Point` (zero-width and direction marks, the
soft hyphen, variation selectors, the byte-order mark, Hangul fillers, tags: DerivedCoreProperties.txt
of Unicode 16), white space, control characters, interlinear annotation and the blank of Braille.
What else a model makes nothing of is found where it is tokenized (`encoders/invisible_texts.py`).
"""

import re

from batch_assets.sources.base import Fault

_IGNORABLE = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
_VISIBLE = re.compile(rf"[^\s\x00-\x1f\x7f-\x9f{_IGNORABLE}\ufff9-\ufffb\u2800]")


def is_visible(text: str) -> bool:
    """Whether a text holds anything that can be seen; found at its first such character."""
    # Most texts begin with a printable ASCII character, which takes a fraction of the search's time.
    return "!" <= text[:1] <= "~" or _VISIBLE.search(text) is not None


def nothing_visible(text: str, what: str) -> Fault:
    """What is wrong with `text`, of which `is_visible` is false; `what` says where it is from."""
    if not text.strip():
        return Fault("empty_text", f"{what} is empty or only white space")
    named = " ".join(f"U+{ord(each):04X}" for each in dict.fromkeys(text[:100]))
    return Fault("invisible_text", f"{what} holds only characters that cannot be seen: {named[:80]}")
