"""Reading YAML of which no one knows who wrote it: no deeper, and with no more in it, than a pipeline could need."""

import io
from pathlib import Path
from typing import Any

import yaml

from batch_assets.errors import ConfigurationError
from batch_assets.storage.local_files import open_regular

DEPTH = 50
NODES = 20_000
MOST_BYTES = 2**20


def read_documents(file: Path) -> list[Any]:
    """Every document of a YAML file. Raises ConfigurationError, whatever lies under its name."""
    try:
        return load_documents(_read_text(file))
    except Exception as error:  # a value that is not what its tag says may raise anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigurationError(f"{file}: cannot be read as YAML: {reason}") from None


def read_start(file: Path) -> bytes:
    """The bytes of a file, whatever they are; of one of more than `MOST_BYTES`, one byte more than that.

    Raises OSError or StorageError where there is no regular file that can be read.
    """
    with io.BufferedReader(open_regular(file)) as opened:
        return opened.read(MOST_BYTES + 1)


def _read_text(file: Path) -> str:
    content = read_start(file)
    if len(content) > MOST_BYTES:
        raise ValueError(f"it has more than {MOST_BYTES:,} bytes")
    return content.decode("utf-8")


def load_documents(text: str) -> list[Any]:
    """Every document of `text`. Raises YAMLError, also for what would be too large once its aliases are followed."""
    return list(yaml.load_all(text, _Loader))


class _Loader(yaml.SafeLoader):
    """Counts while the documents are put together, before anything follows an alias or calls itself for a level."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0
        self._nodes = 0
        self._sizes: dict[str, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: Any = self.peek_event()
        anchor: str | None = event.anchor
        before = self._nodes
        self._depth += 1
        if isinstance(event, yaml.AliasEvent):
            # An anchor without a size is unknown, which is said below, or is not complete yet.
            if anchor in self.anchors and anchor not in self._sizes:
                raise yaml.YAMLError(f"*{anchor} holds itself")
            self._nodes += self._sizes.get(anchor or "", 0)
        else:
            self._nodes += 1
        if self._depth > DEPTH:
            raise yaml.YAMLError(f"it is more than {DEPTH} levels deep")
        if self._nodes > NODES:
            raise yaml.YAMLError(f"it holds more than {NODES} values")
        node = super().compose_node(parent, index)
        self._depth -= 1
        if anchor is not None:
            self._sizes[anchor] = self._nodes - before
        return node

    def compose_document(self) -> yaml.Node | None:
        self._sizes.clear()  # an anchor is known in its own document only
        return super().compose_document()
