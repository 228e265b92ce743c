"""Every field of the settings is judged: what an output root may say of itself, and what only a person may."""

from typing import Any

import pytest

from batch_assets.settings.base import Settings
from batch_assets.settings.executors import EXECUTOR_SETTINGS
from batch_assets.settings.in_place import GpuExecutorSettings, RayExecutorSettings
from batch_assets.settings.model import ModelSettings
from batch_assets.settings.permissions import Permissions, without_permissions
from batch_assets.settings.pipeline import OutputSettings, PipelineSettings, ShardSettings, parse_pipeline
from batch_assets.settings.source import SourceSettings

# A new field gets its place here. Data: it says what is in the root and how it was made. A permission: it has code
# run, private addresses reached or another machine's orders followed, and `without_permissions` takes it away.
DATA: dict[type[Settings], set[str]] = {
    SourceSettings: {
        "uri", "pipeline", "requests", "format", "id_column", "text_column", "image_column", "max_image_pixels",
        "text_template", "columns", "limit", "ids", "exclude", "always_include",
    },
    # A directory as `id` holds data, too: safetensors and JSON, as long as its code is not trusted.
    ModelSettings: {
        "id", "revision", "prompt", "query_prompt", "pooling", "dimensions", "dtype", "max_tokens", "normalize",
    },
    GpuExecutorSettings: {"type", "device", "batch_tokens", "batch_records", "max_attempts"},
    RayExecutorSettings: {
        "type", "workers", "gpus_per_worker", "cpus_per_worker", "batch_tokens", "batch_records", "max_attempts",
    },
    ShardSettings: {"records", "bytes", "max_record_bytes"},
    # `root` is always the place that was asked for.
    OutputSettings: {"root", "dtype", "merge", "single_file"},
    # `deps` and `resources` are names within a Dagster project, which a root is no part of.
    # `retention` removes only what lies under a root that this ledger works on, by the ledger's own configuration.
    PipelineSettings: {
        "name", "task", "source", "model", "executor", "shards", "output", "max_failed_fraction", "merge_when",
        "merge_by", "schedule", "timezone", "calls_per_second", "retention", "automation", "parity", "deps",
        "resources",
    },
}  # fmt: skip
PERMISSIONS: dict[type[Settings], set[str]] = {
    SourceSettings: {"allow_private_addresses"},
    ModelSettings: {"trust_remote_code"},
    RayExecutorSettings: {"address"},
}
# They act in an account, or call a server, by every field: of a root that this ledger has not run, no verb takes one.
REFUSED_AS_A_WHOLE = {"bedrock", "sagemaker", "aws_batch", "gateway"}


@pytest.mark.parametrize("kind", DATA)
def test_every_field_is_judged(kind: type[Settings]) -> None:
    assert set(kind.model_fields) == DATA[kind] | PERMISSIONS.get(kind, set())


def test_every_executor_is_judged() -> None:
    refused = {name for name, kind in EXECUTOR_SETTINGS.items() if kind not in DATA}
    assert refused == REFUSED_AS_A_WHOLE
    assert refused == {name for name, kind in EXECUTOR_SETTINGS.items() if kind.acts_elsewhere}


def test_what_a_root_allows_is_taken_away_and_all_else_stays() -> None:
    model = {"id": "owner/model", "prompt": "query: "}
    allowing: dict[str, Any] = {
        "source": {"uri": "/in", "allow_private_addresses": True},
        "model": {**model, "trust_remote_code": True},
        "executor": {"type": "ray", "address": "ray://theirs:10001", "workers": 2},
        "output": {"root": "/out"},
    }
    plain = {
        **allowing,
        "source": {"uri": "/in"},
        "model": model,
        "executor": {"type": "ray", "workers": 2},
    }
    stripped = without_permissions(parse_pipeline(allowing, "texts", "a test"))
    assert stripped == parse_pipeline(plain, "texts", "a test")
    given = Permissions(trust_remote_code=True).given_to(stripped)
    assert given.model.trust_remote_code and not given.source.allow_private_addresses
