"""Which generations of a pipeline of requests were removed, since their requests were not to be kept any longer.

Kept under the root as ranges, so that a plan that is missing for this reason is told from one that was lost.
"""

import orjson
import pydantic

from batch_assets import paths
from batch_assets.errors import LastingStorageError
from batch_assets.storage import Storage, join_uri

Ranges = list[tuple[int, int]]
_RANGES = pydantic.TypeAdapter(Ranges)


class RemovedGenerations:
    """Ranges of generations, first and last, ascending."""

    def __init__(self, ranges: Ranges) -> None:
        self.ranges = ranges

    @classmethod
    def read(cls, root: Storage) -> "RemovedGenerations":
        """Those of a root. Raises LastingStorageError where the note of it is damaged."""
        found = root.read_versioned(paths.REMOVED)
        try:
            return cls([] if found is None else _RANGES.validate_json(found[0]))
        except pydantic.ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise LastingStorageError(
                f"{join_uri(root.uri, paths.REMOVED)}: is no list of ranges of generations ({reason}); put the file "
                "back as it was"
            ) from error

    def __contains__(self, generation: int) -> bool:
        return any(first <= generation <= last for first, last in self.ranges)

    def note(self, root: Storage, generation: int) -> None:
        """Add one, before its plan goes; repeatable. One process at a time may."""
        if generation not in self:
            self.ranges = _joined(sorted([*self.ranges, (generation, generation)]))
            root.write(paths.REMOVED, orjson.dumps(self.ranges) + b"\n")


def _joined(ranges: Ranges) -> Ranges:
    joined: Ranges = []
    for first, last in ranges:
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    return joined
