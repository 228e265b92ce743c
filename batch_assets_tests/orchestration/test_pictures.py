"""Pictures in metadata: small, and readable by whoever draws SVG."""

import base64
from xml.etree import ElementTree

from batch_assets.orchestration.pictures import bar_chart, photograph

SVG = "{http://www.w3.org/2000/svg}"


def drawn(bars: list[tuple[str, float]]) -> ElementTree.Element:
    """The picture of `bars`, parsed."""
    markdown = bar_chart("Sizes <of> things", bars).value
    assert isinstance(markdown, str)
    prefix = "![Sizes &lt;of&gt; things](data:image/svg+xml;base64,"
    assert markdown.startswith(prefix)
    assert len(markdown) < 20_000
    return ElementTree.fromstring(base64.b64decode(markdown.removeprefix(prefix).removesuffix(")")))


def test_bars_are_as_long_as_their_values() -> None:
    picture = drawn([("one", 10), ("<two>", 20), ("none", 0)])
    texts = [text.text for text in picture.iter(f"{SVG}text")]
    assert texts == ["Sizes <of> things", "one", "10", "<two>", "20", "none", "0"]
    _, one, two, none = [int(rect.get("width", "0").rstrip("%")) for rect in picture.iter(f"{SVG}rect")]
    assert two == 2 * one
    assert none <= 1


def test_of_very_many_bars_some_are_drawn() -> None:
    texts = [text.text for text in drawn([(f"shard {n}", n) for n in range(20_000)]).iter(f"{SVG}text")]
    labels = [text for text in texts if text and text.startswith("shard")]
    assert len(labels) == 40
    assert labels[:2] == ["shard 0", "shard 500"]


def test_what_a_label_quotes_breaks_no_picture() -> None:
    texts = [text.text for text in drawn([("a\x00\x1b[2J<b>", 1)]).iter(f"{SVG}text")]
    assert texts == ["Sizes <of> things", r"a\x00\x1b[2J<b>", "1"]


def test_beside_a_photograph_notes_are_text() -> None:
    shown = photograph("Nearest", b"jpeg", ["<img src=x onerror=alert(1)>.jpg", "a\n![b](http://c)"]).value
    assert isinstance(shown, str)
    assert shown.splitlines()[2:] == [r"&lt;img src=x onerror=alert(1)&gt;.jpg; a\\n!\[b\](http://c)"]


def test_nothing_to_draw() -> None:
    assert [text.text for text in drawn([]).iter(f"{SVG}text")] == ["Sizes <of> things"]
