"""Whether the files of a source belong together, by the names of their columns, which the plan sees anyway."""

from collections.abc import Collection, Iterable, Sequence

from batch_assets.errors import ConfigurationError
from batch_assets.sources.column_kinds import Column
from batch_assets.sources.foreign import matches

_NAMED = 5
_SHOWN = 6  # columns of a file


class FilesAlike:
    """The columns of the files of a planning round: those of files with a text together, of the others by themselves.

    `earlier` are the columns that are planned already, `texts` those without which a record is a bad one,
    `partitions` those that every file has by its place.
    """

    def __init__(self, earlier: Sequence[Column], texts: Sequence[str], partitions: Collection[str]) -> None:
        self._common = {column.source for column in earlier}
        self._texts = frozenset(texts)
        self._partitions = frozenset(partitions)
        self._others: dict[frozenset[str], list[str]] = {}

    def add(self, path: str, names: frozenset[str]) -> None:
        """Take a file with the names of its columns; of one without, nothing can be said."""
        own = names - self._partitions
        if not own or not self._texts:
            return
        if own.isdisjoint(self._texts):
            self._others.setdefault(own, []).append(path)
        else:
            self._common |= own

    def refuse_strangers(self, uri: str, always_include: Iterable[str]) -> None:
        """Raise ConfigurationError where files without a text have nothing in common with those that have one."""
        common = self._common
        if not common:
            return  # no file has a text: that is said of the text column
        strange = {
            path: names
            for names, paths in self._others.items()
            if names.isdisjoint(common)
            for path in paths
            if not matches(path, always_include)
        }
        if not strange:
            return
        named = "; ".join(
            f"{path} ({', '.join(sorted(names)[:_SHOWN])}{', …' if len(names) > _SHOWN else ''})"
            for path, names in sorted(strange.items())[:_NAMED]
        )
        raise ConfigurationError(
            f"source.uri: {uri}: {len(strange):,} files have no column in common with the others "
            f"({', '.join(sorted(common)[:_SHOWN])}{', …' if len(common) > _SHOWN else ''}), and no text: {named}; "
            "leave them out by source.exclude or a name that begins with '_', or take them in by source.always_include"
        )
