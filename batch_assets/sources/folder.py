"""What a folder holds: files by format, and all that is left out, with a sentence for each reason."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from batch_assets.errors import ConfigurationError
from batch_assets.settings.source import IMAGE_FORMATS
from batch_assets.sources.foreign import FileRules, is_metadata, owner_of, plan_folder
from batch_assets.sources.formats import extension_of, format_of, is_of_format
from batch_assets.sources.image_listing import image_files, is_image, stem
from batch_assets.sources.tables.markers import note_tables
from batch_assets.sources.visibility import excluding, hiding, outside, visible
from batch_assets.storage import FileInfo, LocalStorage, Storage

_SHOWN = 3


@dataclass
class FolderContents:
    """What a folder holds: files by format, and all that is none of the source's.

    `images` are the paths of images among those `others`, without their extensions; `dangling` are links that lead
    to nothing, with what they name as their version.
    """

    files: dict[str, list[FileInfo]] = field(default_factory=dict[str, list[FileInfo]])
    tables: dict[str, str] = field(default_factory=dict[str, str])
    others: Counter[str] = field(default_factory=Counter[str])
    images: set[str] = field(default_factory=set[str])
    misnamed: list[FileInfo] = field(default_factory=list[FileInfo])
    dangling: list[FileInfo] = field(default_factory=list[FileInfo])
    hidden: list[str] = field(default_factory=list[str])
    excluded: list[str] = field(default_factory=list[str])
    metadata: list[str] = field(default_factory=list[str])
    roots: dict[str, str] = field(default_factory=dict[str, str])

    def told(self, chosen: str | None) -> list[str]:
        """A sentence for each kind of file that is left out."""
        left_out: list[str] = []
        if self.others:
            left_out.append(f"{self.others.total():,} files of other extensions ({counted(self.others)})")
        left_out += [f"{len(infos):,} {kind} files" for kind, infos in self.files.items() if kind != chosen]
        if self.hidden:
            left_out.append(
                f"{len(self.hidden):,} files with a name or folder that begins with "
                f"{' or '.join(map(repr, hiding(chosen)))}, such as {self.hidden[0]}"
            )
        foreign = [info for info in self.misnamed if chosen is None or not is_of_format(info.path, chosen)]
        if foreign:
            left_out.append(f"{len(foreign):,} files whose name is no UTF-8, such as {foreign[0].path!r}")
        if self.excluded:
            left_out.append(f"{len(self.excluded):,} files by source.exclude, such as {self.excluded[0]}")
        left_out += [f"{folder}/, the output root of pipeline {name}" for folder, name in self.roots.items()]
        if self.metadata:
            left_out.append(
                f"{len(self.metadata):,} files of metadata that other tools write ({', '.join(self.metadata[:_SHOWN])}"
                f"{', …' if len(self.metadata) > _SHOWN else ''}); source.always_include takes them in"
            )
        return left_out


def look(storage: Storage, format: str | None, leave_out: Sequence[str], rules: FileRules) -> FolderContents:
    """Look at all files of a folder. Raises ConfigurationError where it is itself another pipeline's output root."""
    seen = FolderContents()
    plans: set[str] = set()
    infos = outside(storage.list(), storage, leave_out)
    kept = note_tables(excluding(infos, rules.exclude, seen.excluded), seen.tables)
    images: list[FileInfo] = []
    for info in visible(kept, storage, [], seen.hidden, format, seen.misnamed):
        if (root := plan_folder(info.path)) is not None:
            plans.add(root)
        if format == "imagefolder":  # what stands beside an image belongs to it
            images.append(info)
            continue
        found = format_of(info.path)
        if format in IMAGE_FORMATS:  # whatever else lies there, such as statistics, goes by its name
            found = format if is_of_format(info.path, format) else None
        if found is None:
            seen.others[extension_of(info.path)] += 1
            if is_image(info.path):
                seen.images.add(stem(info.path))
        else:
            seen.files.setdefault(found, []).append(info)
    if format == "imagefolder":
        seen.files[format], unused = image_files(images)
        seen.others.update(map(extension_of, unused))
    seen.dangling = list(_dangling(storage, format, leave_out, rules))
    _leave_out_roots(storage, seen, plans)
    if format in (None, "jsonl"):
        _leave_out_metadata(storage, seen, rules)
    return seen


def _dangling(
    storage: Storage, format: str | None, leave_out: Sequence[str], rules: FileRules
) -> Iterable[FileInfo]:
    if not isinstance(storage, LocalStorage):
        return ()
    links = (FileInfo(path, 0, target) for path, target in storage.dangling_links())
    kept = excluding(outside(links, storage, leave_out), rules.exclude, [])
    return visible(kept, storage, [], [], format)


def _leave_out_roots(storage: Storage, seen: FolderContents, plans: Iterable[str]) -> None:
    seen.roots = {folder: name for folder in sorted(plans) if (name := owner_of(storage, folder)) is not None}
    if "" in seen.roots:
        raise ConfigurationError(
            f"source.uri: {storage.uri} is the output root of pipeline {seen.roots['']}; name the folder of what it "
            "has published, merged/<version>/data in there, or name the pipeline in source.pipeline"
        )
    if seen.roots:
        inside = tuple(f"{folder}/" for folder in seen.roots)
        seen.tables = {path: kind for path, kind in seen.tables.items() if not f"{path}/".startswith(inside)}
        seen.files = {
            kind: kept
            for kind, infos in seen.files.items()
            if (kept := [info for info in infos if not info.path.startswith(inside)])
        }


def _leave_out_metadata(storage: Storage, seen: FolderContents, rules: FileRules) -> None:
    lines = seen.files.get("jsonl", [])
    statistics = {os.path.splitext(info.path)[0] + "_stats.json" for info in seen.files.get("parquet", ())}
    if len(lines) == 1 == len([info for infos in seen.files.values() for info in infos]) and not seen.others:
        return  # the only file is what somebody wants to be read
    kept = [info for info in lines if info.path in statistics or not is_metadata(storage, info, rules)]
    if len(kept) == len(lines):
        return
    still = {info.path for info in kept}
    seen.metadata = [info.path for info in lines if info.path not in still]
    if kept:
        seen.files["jsonl"] = kept
    else:
        del seen.files["jsonl"]


def counted(counter: Counter[str]) -> str:
    """The most common ones, each with its number."""
    return ", ".join(f"{name}: {count:,}" for name, count in counter.most_common(3))
