"""What a pipeline has to do with the Dagster project that it is in: names of others' assets, and of resources.

What the resources are is in `orchestration/resources.py`.
"""

import re
from typing import Annotated

import pydantic

from batch_assets.settings.executors import EXECUTOR_SETTINGS

LEDGER = "batch_assets_ledger"
NOTIFICATIONS = "batch_assets_notifications"


def executor_key(kind: str) -> str:
    """The key of the resource that executors of a type are made by."""
    return f"batch_assets_{kind}"


RESOURCE_KEYS = (LEDGER, NOTIFICATIONS, *map(executor_key, EXECUTOR_SETTINGS))


# Dagster makes names of letters, digits and _ out of a key, for which it replaces - and . only.
_ASSET_KEY = re.compile(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*")


def _check_asset(name: str) -> str:
    if not _ASSET_KEY.fullmatch(name):
        raise ValueError(
            "write an asset's key, its parts with / between, such as raw/articles; Dagster takes a-z, A-Z, 0-9, _, - "
            "and . in a part"
        )
    return name


def _check_resource(key: str) -> str:
    if key not in RESOURCE_KEYS:
        raise ValueError(f"there is no such resource; known: {', '.join(RESOURCE_KEYS)}")
    return key


AssetName = Annotated[str, pydantic.AfterValidator(_check_asset)]
ResourceKey = Annotated[str, pydantic.AfterValidator(_check_resource)]
