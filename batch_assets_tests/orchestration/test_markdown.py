"""Sentences that quote others' text, as Markdown: shown as they are, and read back as they were."""

import pytest

from batch_assets.orchestration.markdown import markdown_list, markdown_text, read_list


@pytest.mark.parametrize(
    ("text", "markdown"),
    [
        ("3 files are new: a_b.jsonl, c-d.jsonl", "3 files are new: a_b.jsonl, c-d.jsonl"),
        ("<script>alert(1)</script> & more", "&lt;script&gt;alert(1)&lt;/script&gt; &amp; more"),
        ("[here](javascript:alert(1)) **now** `x`", r"\[here\](javascript:alert(1)) \*\*now\*\* \`x\`"),
        ("a\n- forged\x1b[2J", r"a\\n- forged\\x1b\[2J"),
    ],
)
def test_what_a_sentence_quotes_is_text(text: str, markdown: str) -> None:
    assert markdown_text(text) == markdown


def test_a_list_is_read_back_sentence_by_sentence() -> None:
    told = ["touched: in/<b>&amp;*[x]\\_.jsonl", "two\nlines", "- a dash"]
    assert read_list(markdown_list(told)) == [told[0], r"two\nlines", told[2]]
    assert markdown_list([]) == "none"
    assert read_list("none") == []
