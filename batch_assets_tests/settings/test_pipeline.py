"""A pipeline's settings are handed on as JSON, to workers and to the output root: they come back the same."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_assets.errors import ConfigurationError
from batch_assets.settings.pipeline import PipelineSettings, parse_pipeline

BASE = {"source": {"uri": "in"}, "output": {"root": "out"}}
MINUTES = {"m": 1, "h": 60, "d": 1_440, "w": 10_080}
AGES = st.builds(
    lambda most, unit, share: f"{int(most * share) // MINUTES[unit]}{unit}",
    st.just(5_200 * MINUTES["w"]),
    st.sampled_from(sorted(MINUTES)),
    st.floats(0, 1),
)
EXECUTORS: tuple[dict[str, Any], ...] = (
    {"type": "gpu"},
    {"type": "ray"},
    {
        "type": "bedrock",
        "role_arn": "arn:aws:iam::123456789012:role/r",
        "model_id": "m",
        "staging": "s3://bucket/staging/",
    },
    {"type": "sagemaker", "model_name": "m", "staging": "s3://bucket/staging/", "tags": {"a": "b"}},
    {"type": "aws_batch", "job_queue": "q", "image": "i", "retry": {"attempts": 2, "spot": False}},
)


@given(
    executor=st.sampled_from(EXECUTORS),
    retention=st.none() | st.dictionaries(st.sampled_from(["requests", "spools", "merged"]), AGES),
    merge_when=st.sampled_from(
        [
            "all",
            "any",
            {"fraction": 0.99},
            {"at": "06:00"},
            {"at": "01:00+02:00"},
            {"at": "2026-11-21T06:00:00Z"},
        ]
    ),
    source=st.sampled_from([{"uri": "in", "limit": 7}, {"pipeline": "other"}]),
)
def test_what_is_written_is_read_back(executor: Any, retention: Any, merge_when: Any, source: Any) -> None:
    values = {
        **BASE, "source": source, "executor": executor, "retention": retention, "merge_when": merge_when,
        "shards": {"bytes": "200MB"}, "schedule": "30 6 * * 1-5", "timezone": "Europe/Berlin", "calls_per_second": 2.5,
    }  # fmt: skip
    settings = parse_pipeline(values, "texts", "a test")
    assert PipelineSettings.model_validate(settings.model_dump(mode="json")) == settings
    assert PipelineSettings.model_validate_json(settings.model_dump_json()) == settings


@pytest.mark.parametrize("age", ["7", 7, "1y", "-1d", "5201w", "99999999999m", "1.5h"])
def test_what_is_no_age(age: Any) -> None:
    with pytest.raises(
        ConfigurationError, match=r"retention\.merged: .* cannot be used: (write an age|it is more)"
    ):
        parse_pipeline({**BASE, "retention": {"merged": age}}, "texts", "a test")


def test_shards_of_another_pipeline_make_no_groups_by_folder() -> None:
    values = {**BASE, "source": {"pipeline": "captions"}, "merge_by": "folder"}
    with pytest.raises(
        ConfigurationError, match="the shards of pipeline captions lie in no folders; name a column"
    ):
        parse_pipeline(values, "texts", "a test")


@pytest.mark.parametrize(
    ("written", "executor", "mode"),
    [
        ({}, EXECUTORS[0], "block"),
        ({"parity": "warn"}, EXECUTORS[1], "warn"),
        ({"parity": False}, EXECUTORS[0], "off"),  # what YAML makes of a plain off
        ({}, EXECUTORS[2], "off"),
        ({"parity": "off"}, EXECUTORS[4], "off"),
    ],
)
def test_parity_blocks_by_default_where_there_is_a_model_to_ask(
    written: dict[str, Any], executor: dict[str, Any], mode: str
) -> None:
    values = {**BASE, "executor": executor, **written}
    assert parse_pipeline(values, "texts", "a test").parity_mode == mode


def test_parity_needs_a_model_to_ask() -> None:
    with pytest.raises(ConfigurationError, match="parity: 'warn' cannot be used: executor bedrock computes"):
        parse_pipeline({**BASE, "executor": EXECUTORS[2], "parity": "warn"}, "texts", "a test")
