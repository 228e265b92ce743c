"""Output roots as they were before versions had a folder `data`: parts and groups lay in the version's own."""

import shutil
from pathlib import Path

import orjson


def make_old(root: Path) -> None:
    """Give every finished version under `root` the old layout: files moved, manifest rewritten, bytes the same."""
    for manifest in root.glob("merged/*/manifest.json"):
        content = orjson.loads(manifest.read_bytes())
        for part in content["parts"]:
            new, part["uri"] = part["uri"], part["uri"].removeprefix("data/")
            target = manifest.parent / part["uri"]
            target.parent.mkdir(exist_ok=True)
            shutil.move(manifest.parent / new, target)
        for group in content["groups"]:
            group["folder"] = group["folder"].removeprefix("data/")
        manifest.write_bytes(orjson.dumps(content))
        shutil.rmtree(manifest.parent / "data")
