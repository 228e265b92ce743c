"""Small pictures for metadata, as Markdown that the Dagster UI shows.

A hundred kilobytes at most, charts a few: they are stored in the event's row. What is drawn is
chosen in `metadata.py`.
"""

import base64
from collections.abc import Sequence
from html import escape

import dagster as dg

from batch_assets.orchestration.markdown import markdown_text
from batch_assets.plain_text import plain_text

WIDTH, BAR_HEIGHT, LABEL_WIDTH, MOST_BARS = 520, 18, 90, 40


def bar_chart(title: str, bars: Sequence[tuple[str, float]]) -> dg.MetadataValue:
    """Horizontal bars with their labels and values; of very many, evenly chosen ones."""
    step = -(-len(bars) // MOST_BARS) or 1
    shown = list(bars)[::step]
    most = max((value for _, value in shown), default=0) or 1
    room = WIDTH - LABEL_WIDTH - 80
    rows = [f'<text x="4" y="14" font-weight="bold">{_drawn(title)}</text>']
    for number, (label, value) in enumerate(shown):
        top = 24 + number * BAR_HEIGHT
        width = max(1, round(room * value / most))
        rows.append(
            f'<text x="{LABEL_WIDTH - 6}" y="{top + 12}" text-anchor="end">{_drawn(label)}</text>'
            f'<rect x="{LABEL_WIDTH}" y="{top + 2}" width="{width}" height="{BAR_HEIGHT - 5}" fill="#4f43dd"/>'
            f'<text x="{LABEL_WIDTH + width + 5}" y="{top + 12}">{value:,.0f}</text>'
        )
    height = 30 + len(shown) * BAR_HEIGHT
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
        f'font-family="sans-serif" font-size="11"><rect width="100%" height="100%" fill="white"/>'
        + "".join(rows)
        + "</svg>"
    )
    encoded = base64.b64encode(svg.encode()).decode()
    return dg.MetadataValue.md(f"![{markdown_text(title)}](data:image/svg+xml;base64,{encoded})")


def photograph(title: str, jpeg: bytes, notes: Sequence[str]) -> dg.MetadataValue:
    """A JPEG, if there is one, above sentences that say what it shows."""
    encoded = base64.b64encode(jpeg).decode()
    shown = [f"![{markdown_text(title)}](data:image/jpeg;base64,{encoded})"] if jpeg else []
    return dg.MetadataValue.md("\n\n".join([*shown, markdown_text("; ".join(notes))]))


def _drawn(text: str) -> str:
    """Text within an SVG, which no control character may be in."""
    return escape(plain_text(text))
