"""docs/configuration.md says of every field and flag what the code says."""

import datetime
import re
from typing import Any

import pytest
from pydantic.fields import FieldInfo

from batch_assets.cli.options import FLAGS
from batch_assets.settings.aws_batch import RetrySettings
from batch_assets.settings.base import Settings
from batch_assets.settings.executors import EXECUTOR_SETTINGS
from batch_assets.settings.model import ModelSettings
from batch_assets.settings.pipeline import OutputSettings, PipelineSettings, ShardSettings
from batch_assets.settings.prices import TokenPrices
from batch_assets.settings.requests import RequestsSettings
from batch_assets.settings.retention import RetentionSettings, write_age
from batch_assets.settings.source import SourceSettings
from batch_assets_tests.module_imports import REPOSITORY

PAGE = (REPOSITORY / "docs" / "configuration.md").read_text()
EXECUTORS_PAGE = (REPOSITORY / "docs" / "executors.md").read_text()
# Under which heading the fields of a model stand.
SECTIONS: dict[str, type[Settings]] = {
    "## source": SourceSettings,
    "## model": ModelSettings,
    "## shards": ShardSettings,
    "## output": OutputSettings,
    "## The pipeline itself": PipelineSettings,
    "### retention": RetentionSettings,
    "### source.requests": RequestsSettings,
    "#### executor.prices": TokenPrices,
    **{f"### executor: {name}": model for name, model in EXECUTOR_SETTINGS.items()},
    "#### executor.retry": RetrySettings,
}


def section(page: str, heading: str) -> str:
    """What stands below a heading, up to the next one of any level."""
    match = re.search(rf"^{re.escape(heading)}$\n(.*?)(?=^#|\Z)", page, re.DOTALL | re.MULTILINE)
    assert match, f"there is no {heading!r}"
    return match[1]


def default_of(field: FieldInfo) -> str:
    """A field's default as the tables write it: nothing where something else decides."""
    if field.is_required():
        return "required"
    default: Any = field.default
    if field.default_factory is not None or default in (None, ""):
        return ""
    if isinstance(default, datetime.timedelta):
        return f"`{write_age(default)}`"
    written = str(default).lower() if isinstance(default, bool) else default
    return f"`{written:g}`" if isinstance(written, float) else f"`{written}`"


def described(text: str) -> str:
    """A description as Markdown: a backslash is written twice."""
    return text.replace("\\n", "\\\\n")


@pytest.mark.parametrize("heading", SECTIONS)
def test_every_field_is_in_its_table_with_default_and_description(heading: str) -> None:
    table = section(PAGE, heading)
    fields = SECTIONS[heading].model_fields
    for name, field in fields.items():
        assert field.description, name
        assert f"| `{name}` | {default_of(field)} | {described(field.description)} |" in table, name
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == list(fields)


def test_every_executor_has_its_fields_on_the_executors_page() -> None:
    for name, model in EXECUTOR_SETTINGS.items():
        table = section(EXECUTORS_PAGE, f"### Fields of {name}")
        for field_name, field in model.model_fields.items():
            assert f"| `{field_name}` | {default_of(field)} | " in table, field_name
        assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == list(model.model_fields)


def test_every_flag_is_on_the_page() -> None:
    for name, annotation in FLAGS.items():
        assert f"`--{name.replace('_', '-')}`" in PAGE
        assert annotation.__metadata__[0].help in PAGE
