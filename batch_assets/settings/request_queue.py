"""A queue of requests as assets: the fields of the component RequestQueue. Whoever works on it has `dispatch.py`."""

import pydantic
from pydantic import Field

from batch_assets.settings.base import Settings
from batch_assets.settings.pipeline import Name
from batch_assets.settings.project import AssetName


class RequestQueueSettings(Settings):
    """One queue and the queue of its results, as one `defs.yaml` declares them."""

    name: Name = Field(
        default="", description="Opens the keys of its assets; by default the folder's. [a-z][a-z0-9_]{0,23}"
    )
    url: str = Field(
        description="The queue, as dispatch --queue has it: local:NAME, redis://host:6379/0?queue=NAME, "
        "redis+pubsub://host:6379/0?channel=NAME or sqs://region/queue-name. A password belongs into the environment: "
        "{{ env.REDIS_URL }}."
    )
    results: str | None = Field(
        default=None,
        description="Where its results are, as dispatch --results has it; by default NAME-results.",
    )
    deps: list[AssetName] = Field(
        default_factory=list,
        description="Keys of the assets that put messages into it, such as raw/questions.",
    )

    @pydantic.field_validator("deps")
    @classmethod
    def _others_assets(cls, deps: list[str], info: pydantic.ValidationInfo) -> list[str]:
        # Dagster takes no circle, and would load nothing of the whole code location.
        name = info.data.get("name")
        for dep in deps:
            if dep in (f"{name}/requests", f"{name}/results"):
                raise ValueError(f"{dep} is this queue's own; name the assets that put messages into it")
        return deps
