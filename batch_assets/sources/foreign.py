"""Files in a source that are no records: other pipelines' output, and metadata that tools write beside their data.

Known ones are left out, by name and by shape: a file of such a name whose first line is a record is
data. `exclude` and `always_include` of a source say otherwise.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from batch_assets import paths
from batch_assets.sources.base import Fault
from batch_assets.sources.json_values import parse_object
from batch_assets.storage import FileInfo, Storage
from batch_assets.storage.owner import parse_owner

_METADATA = re.compile(
    r"(?:metadata|manifest|state|dataset_infos?|dataset_dict|pipeline|shard|input|job|attempt|.*_stats)\.json"
)
# pipeline.json is no rare name; with a plan beside it, it is this program's.
_PLAN = re.compile(r"(?:(.*)/)?plan/g\d{4,}\.(?:parquet|json)")
_LOOKED_AT = 64 * 2**10


@dataclass(frozen=True)
class FileRules:
    """Which files of a folder are records: patterns of those that are not, and of those that are in any case.

    `required` are the columns that every record has. A pattern with a slash is of a path relative to the source,
    one without of any name in it; of a folder, it stands for all that is in there.
    """

    exclude: Sequence[str] = ()
    always_include: Sequence[str] = ()
    required: Sequence[str] = ()


def matches(path: str, patterns: Iterable[str]) -> bool:
    """Whether one of the patterns is of this path, or of a folder in it."""
    if not patterns:
        return False
    parts = path.split("/")
    whole = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
    return any(
        fnmatchcase(one, pattern.strip("/"))
        for pattern in patterns
        for one in (whole if "/" in pattern.strip("/") else parts)
    )


def plan_folder(path: str) -> str | None:
    """The folder that may be an output root, where this is the path of a plan in it."""
    found = _PLAN.fullmatch(path)
    return None if found is None else found[1] or ""


def owner_of(storage: Storage, folder: str) -> str | None:
    """The pipeline whose output root a folder is; None where it is none."""
    found = storage.read_versioned(f"{folder}/{paths.PIPELINE}" if folder else paths.PIPELINE)
    owner = parse_owner(found[0]) if found is not None else None
    return None if owner is None else owner["pipeline"]


def roots_around(storage: Storage, found: Iterable[str]) -> set[str]:
    """The output roots that some of these files lie in, by the names of the folders that a root has."""
    folders = {
        "/".join(parts[:place])
        for parts in (path.split("/") for path in found)
        for place, name in enumerate(parts[:-1])
        if name in paths.FOLDERS
    }
    return {folder for folder in folders if owner_of(storage, folder) is not None}


def is_metadata(storage: Storage, info: FileInfo, rules: FileRules) -> bool:
    """Whether a file has a name that tools give to metadata, and its first line is no record."""
    named = _METADATA.fullmatch(info.path.rpartition("/")[2])
    if named is None or matches(info.path, rules.always_include):
        return False
    beginning = b""
    for chunk in storage.stream(info.path, 0, min(info.size, _LOOKED_AT)):
        beginning += chunk
    line = beginning.lstrip().split(b"\n", 1)[0]
    value = parse_object(line, _LOOKED_AT, frozenset())
    if isinstance(value, Fault):
        # Longer than what was looked at, it may be anything: the plan will tell.
        return not (len(beginning) == _LOOKED_AT and line == beginning.lstrip())
    return not all(column in value for column in rules.required)
