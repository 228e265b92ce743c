"""Resources and sensors of a code location without a component tree; with one, a pipeline brings them."""

from collections.abc import Collection

import dagster as dg

from batch_assets.errors import ConfigurationError
from batch_assets.orchestration.shared import build_shared_definitions
from batch_assets.settings.project import RESOURCE_KEYS


def shared_definitions(*, project: Collection[str] = ()) -> dg.Definitions:
    """The resources and sensors that all pipelines of a code location share; merge them in once.

    `project` names the resources that the project defines itself, such as `batch_assets_ledger`.
    Raises ConfigurationError for a key that no pipeline asks for.
    """
    if unknown := sorted({*project}.difference(RESOURCE_KEYS)):
        raise ConfigurationError(
            f"project: there is no resource {unknown[0]!r}; known: {', '.join(RESOURCE_KEYS)}"
        )
    return build_shared_definitions(project)
