"""Iceberg tables as other tools write them, with what the library pyiceberg itself cannot write: deletes of rows."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.manifest import (
    DataFile,
    DataFileContent,
    FileFormat,
    ManifestContent,
    ManifestEntry,
    ManifestEntryStatus,
    ManifestWriterV2,
    write_manifest_list,
)
from pyiceberg.table import Table
from pyiceberg.typedef import Record


def create(folder: Path, schema: pa.Schema, identity: Sequence[str] = ()) -> Table:
    """An empty table in `folder`, partitioned by these columns, in a catalog that lies elsewhere."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    catalog = SqlCatalog("tests", uri=f"sqlite:///{folder.parent}/{folder.name}-catalog.db")
    catalog.create_namespace("tests")
    table = catalog.create_table("tests.table", schema=schema, location=f"file://{folder}")
    with table.update_spec() as update:
        for name in identity:
            update.add_identity(name)
    return table


def delete_rows(
    table: Table, positions: Sequence[int], content: DataFileContent = DataFileContent.POSITION_DELETES
) -> None:
    """Add a snapshot that deletes these rows of the first data file, as Spark's merge-on-read does: the file stays."""
    snapshot = table.current_snapshot()
    assert snapshot is not None
    folder = Path(table.location().removeprefix("file://"))
    data = next(iter(table.scan().plan_files())).file
    deletes, number = folder / "data" / "deletes.parquet", (snapshot.sequence_number or 0) + 1
    rows = {"file_path": [data.file_path] * len(positions), "pos": list(positions)}
    pq.write_table(pa.table(rows), deletes)
    file = DataFile.from_args(
        content=content,
        file_path=f"file://{deletes}",
        file_format=FileFormat.PARQUET,
        partition=data.partition if len(data.partition) else Record(),
        record_count=len(positions),
        file_size_in_bytes=deletes.stat().st_size,
        equality_ids=[1] if content is DataFileContent.EQUALITY_DELETES else None,
    )
    file.spec_id = data.spec_id
    entry = ManifestEntry.from_args(status=ManifestEntryStatus.ADDED, snapshot_id=number, data_file=file)
    manifest = table.io.new_output(f"file://{folder}/metadata/deletes-m0.avro")
    with _DeletesWriter(table.specs()[data.spec_id], table.schema(), manifest, number, "deflate") as writer:
        writer.add_entry(entry)
    listed = f"file://{folder}/metadata/snap-{number}.avro"
    with write_manifest_list(2, table.io.new_output(listed), number, None, number, "deflate") as manifests:
        manifests.add_manifests([*snapshot.manifests(table.io), writer.to_manifest_file()])
    _commit(folder, table, {"snapshot-id": number, "sequence-number": number, "manifest-list": listed})


class _DeletesWriter(ManifestWriterV2):
    def content(self) -> ManifestContent:
        return ManifestContent.DELETES

    @property
    def _meta(self) -> dict[str, str]:
        return {**super()._meta, "content": "deletes"}


def _commit(folder: Path, table: Table, snapshot: dict[str, Any]) -> None:
    metadata = json.loads(Path(table.metadata_location.removeprefix("file://")).read_text())
    later = {"timestamp-ms": metadata["last-updated-ms"] + 1, "summary": {"operation": "delete"}}
    metadata["snapshots"].append(snapshot | later)
    metadata["current-snapshot-id"] = snapshot["snapshot-id"]
    metadata["last-sequence-number"] = snapshot["sequence-number"]
    metadata["refs"] = {"main": {"snapshot-id": snapshot["snapshot-id"], "type": "branch"}}
    name = "00099-00000000-0000-0000-0000-000000000000.metadata.json"
    (folder / "metadata" / name).write_text(json.dumps(metadata))
