"""What a pipeline has to do with the Dagster project that it is in: names of others' assets, and of resources.

What the resources are is in `orchestration/resources.py`.
"""

from typing import Annotated

import pydantic

from batch_assets.settings.executors import EXECUTOR_SETTINGS

LEDGER = "batch_assets_ledger"
NOTIFICATIONS = "batch_assets_notifications"


def executor_key(kind: str) -> str:
    """The key of the resource that executors of a type are made by."""
    return f"batch_assets_{kind}"


RESOURCE_KEYS = (LEDGER, NOTIFICATIONS, *map(executor_key, EXECUTOR_SETTINGS))


def _check_asset(name: str) -> str:
    parts = name.split("/")
    if not all(part.strip() for part in parts):
        raise ValueError("write an asset's key, its parts with / between, such as raw/articles")
    return name


def _check_resource(key: str) -> str:
    if key not in RESOURCE_KEYS:
        raise ValueError(f"there is no such resource; known: {', '.join(RESOURCE_KEYS)}")
    return key


AssetName = Annotated[str, pydantic.AfterValidator(_check_asset)]
ResourceKey = Annotated[str, pydantic.AfterValidator(_check_resource)]
