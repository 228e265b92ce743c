"""Cutting batches of records into smaller ones, for what takes far more memory made ready than read."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator

from batch_assets.sources.base import Records


def pieces(records: Iterable[Records], most: int) -> Iterator[Records]:
    """The same records in pieces of at most `most`; each rejection stays between its neighbours."""
    for part in records:
        if len(part) <= most:
            yield part
            continue
        taken = 0
        rejections = sorted(part.rejections, key=lambda rejection: rejection.ordinal)
        ordinals = [rejection.ordinal for rejection in rejections]
        for first in range(0, len(part), most):
            last = min(first + most, len(part))
            end = len(ordinals)
            if last < len(part):
                end = bisect_left(ordinals, part.ordinals[last], lo=taken)
            yield Records(
                ordinals=part.ordinals[first:last],
                record_ids=part.record_ids[first:last],
                source_files=part.source_files[first:last],
                source_rows=part.source_rows[first:last],
                texts=part.texts[first:last],
                columns=part.columns.slice(first, last - first),
                rejections=rejections[taken:end],
                images=None if part.images is None else part.images[first:last],
            )
            taken = end
