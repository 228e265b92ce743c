"""A pipeline's settings in the terms of its sources: which columns they need, and what reads its files."""

from collections.abc import Sequence

from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.settings.source import IMAGE_FORMATS, JOB_ID
from batch_assets.sources.column_kinds import Column
from batch_assets.sources.columns import ColumnScan
from batch_assets.sources.foreign import FileRules
from batch_assets.sources.images import ImageColumns, meta_name
from batch_assets.sources.parquet_columns import TextColumns
from batch_assets.sources.partitions import Partitions, no_values
from batch_assets.sources.registry import Sources
from batch_assets.sources.shards import RECORD_ID
from batch_assets.sources.spool_files import Spools
from batch_assets.sources.tables.snapshot import TableSnapshot
from batch_assets.sources.texts import TextRule
from batch_assets.storage import Storage


def open_sources(
    settings: PipelineSettings,
    format: str,
    storage: Storage,
    spools: Spools,
    longest: int,
    partitions: Partitions = no_values,
    table: TableSnapshot | None = None,
) -> Sources:
    """The implementations that read this pipeline's files, which are of `format`.

    A `table` tells the values of partition columns itself; for other files `partitions` does.
    """
    source = settings.source
    texts = TextColumns(
        frozenset(_text_columns(settings)), source.text_template is not None, source.id_column
    )
    images = ImageColumns(source.image_column, format == "img2dataset") if source.images else None
    if table is None:
        return Sources(format, storage, spools, longest, texts, images, partitions)
    return Sources(
        format, storage, spools, longest, texts, images, table.values, table.deleted, table.dropped
    )


def file_rules(settings: PipelineSettings) -> FileRules:
    """Which files of a folder are the pipeline's records."""
    source = settings.source
    return FileRules(source.exclude, source.always_include, text_columns(settings))


def column_scan(settings: PipelineSettings, format: str, earlier: Sequence[Column] | None) -> ColumnScan:
    """What settles the columns of a plan; `earlier` are those of the generation before.

    Raises ConfigurationError for a template that is none.
    """
    source = settings.source
    texts = text_columns(settings)
    return ColumnScan(
        source.columns,
        _required_columns(settings, format),
        earlier,
        texts,
        texts[0] if texts and source.text_template is None else None,
        _implied_columns(settings),
        meta_name if format in IMAGE_FORMATS else str,
        source.id_column,
        tolerant=source.requests is not None,
    )


def text_columns(settings: PipelineSettings) -> list[str]:
    """The columns without which a record is a bad one; none of images: one without a caption is no bad record."""
    return [] if settings.source.images else _text_columns(settings)


def _text_columns(settings: PipelineSettings) -> list[str]:
    source = settings.source
    column = None if source.text_template is not None else source.text_columns[0]
    return TextRule(column, source.text_template).columns


def _required_columns(settings: PipelineSettings, format: str) -> dict[str, str]:
    """Columns without which no record makes sense, with the setting that names each."""
    source = settings.source
    field = "source.text_column" if source.text_template is None else "source.text_template"
    required = dict.fromkeys(_text_columns(settings), field)
    if source.images and source.text_column is None and source.text_template is None:
        required = {}  # there may be no captions
    if source.image_column is not None and format in ("jsonl", "csv"):
        required[source.image_column] = "source.image_column"
    return required | ({source.id_column: "source.id_column"} if source.id_column is not None else {})


def _implied_columns(settings: PipelineSettings) -> frozenset[str]:
    """Columns of the source that are there again in the output without being passed through."""
    if settings.source.requests is not None:
        return frozenset({JOB_ID})
    carried = settings.source.pipeline is not None and settings.source.id_column == RECORD_ID
    return frozenset({RECORD_ID}) if carried else frozenset()
