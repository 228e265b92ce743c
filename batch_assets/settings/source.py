"""Where records are read from."""

from typing import Literal

import pydantic
from pydantic import Field

from batch_assets.settings.base import Settings
from batch_assets.settings.requests import RequestsSettings

# Before an output root: the shards of the pipeline that it belongs to.
SHARDS_SCHEME = "shards:"
IMAGE_FORMATS = ("img2dataset", "webdataset", "imagefolder")
Format = Literal["jsonl", "csv", "parquet", "img2dataset", "webdataset", "imagefolder", "delta", "iceberg"]
UNIQUE = "unique"
JOB_ID = "job_id"
"""The column of a sealed window that holds a request's job id."""
Ids = Literal["any", "unique"]


class SourceSettings(Settings):
    """Where records are read from."""

    uri: str | None = Field(
        default=None,
        description="A file or a folder (read recursively): a local path, s3://, gs:// or az://.",
    )
    pipeline: str | None = Field(
        default=None,
        description="Instead of uri: another pipeline of the same defs folder, whose shards this one takes over one "
        "for one, each as soon as it is collected there: their embedded records with their columns and, as id_column, "
        "their record_id.",
    )
    requests: RequestsSettings | None = Field(
        default=None,
        description="Instead of uri: single records, as `batch-assets serve` takes them over HTTP. Each is a JSON "
        "object of columns; its record_id is its job id.",
    )
    format: Format | None = Field(
        default=None,
        description="jsonl, csv, parquet, img2dataset, webdataset, imagefolder, delta or iceberg; by default told by "
        "the files' extension (.jsonl .ndjson .json, each also .gz or .zst; .csv .tsv; .parquet), and a table's folder "
        "by its log. img2dataset, webdataset and imagefolder hold images: img2dataset's Parquet shards, tar shards, "
        "and image files in folders; they are to be named.",
    )
    id_column: str | None = Field(
        default=None,
        description="Column with the record's own id; by default the record is named <shard>:<ordinal>.",
    )
    ids: Ids = Field(
        default="any",
        description="any: ids that occur more than once, and records without one, are counted and published; unique: "
        "they are refused, when the source is planned and before anything is published.",
    )
    text_column: str | None = Field(
        default=None,
        description="Column with the text to embed; by default `text`, beside an image its `caption`.",
    )
    image_column: str | None = Field(
        default=None,
        description="Column with the images to embed: whole files as bytes, or where each is (a path, s3://, "
        "gs://, http(s)://). By default, in img2dataset's shards, the column of bytes, else `url`. Of webdataset the "
        "extension, such as `left.jpg`, where a sample has several images.",
    )
    max_image_pixels: int = Field(
        default=100_000_000, ge=1, description="An image of more pixels is rejected before it is decoded."
    )
    allow_private_addresses: bool = Field(
        default=False, description="Fetch images also from URLs that point into private networks."
    )
    text_template: str | None = Field(
        default=None,
        description='Instead of text_column: a template over columns, such as "{title}\\n{body}".',
    )
    columns: list[str] | None = Field(
        default=None, description="Columns passed through to the output; by default all of them."
    )
    exclude: list[str] = Field(
        default_factory=list,
        description="Files of a folder that are not to be read, as patterns such as notes.jsonl, *.tmp.json or "
        "raw/2023-*: with a slash, of paths relative to the source; without, of any name of a file or folder.",
    )
    always_include: list[str] = Field(
        default_factory=list,
        description="Files, as such patterns, that are records in any case: not left out as another tool's metadata, "
        "nor refused because their columns have nothing in common with the other files'.",
    )
    limit: int | None = Field(
        default=None, ge=1, description="Plan at most this many records, the first ones."
    )

    @pydantic.model_validator(mode="after")
    def _one_source_one_text(self) -> "SourceSettings":
        if self.requests is not None:
            self._fits_requests()
            return self
        # Once resolved, a pipeline stands beside the URI of its shards.
        resolved = self.uri is not None and self.uri.startswith(SHARDS_SCHEME)
        if resolved and self.pipeline is None:
            raise ValueError(f"{self.uri} means another pipeline's shards; name that one in source.pipeline")
        if not resolved and (self.uri is None) == (self.pipeline is None):
            raise ValueError("name exactly one of uri, pipeline and requests")
        if self.pipeline is not None and self.format not in (None, "parquet"):
            raise ValueError(f"a pipeline's shards are parquet, not {self.format}; leave format out")
        if self.text_column is not None and self.text_template is not None:
            raise ValueError("name text_column or text_template, not both")
        if self.image_column is not None and self.format == "imagefolder":
            raise ValueError("image_column: each file of an imagefolder is an image; leave it out")
        if self.ids == UNIQUE and self.id_column is None and self.pipeline is None:
            raise ValueError("ids: unique needs id_column; without one each record is named by its place")
        return self

    def _fits_requests(self) -> None:
        """Refuse what says how files are to be read. The URI is that of the sealed windows, once it is resolved."""
        if self.pipeline is not None:
            raise ValueError("name exactly one of uri, pipeline and requests")
        if self.text_column is not None and self.text_template is not None:
            raise ValueError("name text_column or text_template, not both")
        unfit = {
            "format": None if self.format == "jsonl" else self.format,
            "limit": self.limit,
            "exclude": self.exclude,
            "always_include": self.always_include,
            "ids": None if self.ids == "any" else self.ids,
        }
        for name, value in unfit.items():
            if value:
                raise ValueError(
                    f"{name}: {value!r}: is for files, and requests come one by one; leave it out"
                )
        if self.id_column not in (None, JOB_ID):
            raise ValueError(
                f"id_column: {self.id_column!r}: a request is named by its job id; leave id_column out, and name the "
                "column in columns if it is to pass through"
            )

    @property
    def images(self) -> bool:
        """Whether the records are images, each maybe with a caption."""
        return self.image_column is not None or self.format in IMAGE_FORMATS

    @property
    def text_columns(self) -> list[str]:
        """The columns the text is made of; of images, the caption, which not every one has."""
        if self.text_template is None:
            return [self.text_column or ("caption" if self.images else "text")]
        import string

        names = [name for _, name, _, _ in string.Formatter().parse(self.text_template) if name]
        return list(dict.fromkeys(names))
