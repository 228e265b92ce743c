"""docs/configuration.md says of every field and flag what the code says."""

from pathlib import Path

import pytest

from batch_assets import settings
from batch_assets.cli.options import FLAGS

PAGE = (Path(__file__).parent.parent / "docs" / "configuration.md").read_text()
MODELS = [
    settings.SourceSettings,
    settings.ModelSettings,
    settings.GpuExecutorSettings,
    settings.ShardSettings,
    settings.OutputSettings,
    settings.PipelineSettings,
]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_field_is_on_the_page_with_its_description(model: type[settings.Settings]) -> None:
    for name, field in model.model_fields.items():
        assert field.description, name
        assert f"| `{name}` |" in PAGE
        assert field.description.replace("\\n", "\\\\n") in PAGE, name


def test_every_flag_is_on_the_page() -> None:
    for name, annotation in FLAGS.items():
        assert f"`--{name.replace('_', '-')}`" in PAGE
        assert annotation.__metadata__[0].help in PAGE
