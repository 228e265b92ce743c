"""An executor and its settings are asked for what their types have, never for a field by name that may not be there.

A misspelt or renamed field would else be a default for ever, and no type checker could tell.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from batch_assets.settings.executors import EXECUTOR_SETTINGS
from batch_assets.settings.pipeline import parse_pipeline
from batch_assets_tests.module_imports import PACKAGE, REPOSITORY

TYPED = ("executor", "settings", "options")


def asked_by_name(tree: ast.AST) -> Iterator[ast.Call]:
    """Calls such as `getattr(pipeline.settings.executor, "budget_usd", None)`."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(
                func=ast.Name("getattr" | "hasattr"),
                args=[ast.Name(id=name) | ast.Attribute(attr=name), ast.Constant(str()), *_],
            ) if name.endswith(TYPED):
                yield node


def places(file: Path) -> list[str]:
    name = file.relative_to(REPOSITORY).as_posix()
    return [
        f"{name}:{call.lineno}: {ast.unparse(call)}" for call in asked_by_name(ast.parse(file.read_bytes()))
    ]


def test_no_field_of_an_executor_is_asked_for_by_name() -> None:
    files = sorted(PACKAGE.rglob("*.py"))
    assert [place for file in files for place in places(file)] == []


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ('getattr(pipeline.settings.executor, "budget_usd", None)', True),
        ('hasattr(settings.executor, "device")', True),
        ('getattr(executor, "staging", storage)', True),
        ('getattr(self.options, "queue_url")', True),
        ('getattr(error, "response", None)', False),
        ('hasattr(resource, "executor")', False),
        ("getattr(settings, name)", False),
    ],
)
def test_the_rule_itself(line: str, found: bool) -> None:
    assert bool(list(asked_by_name(ast.parse(line)))) is found


MODELS = {
    "bedrock": {"role_arn": "arn:aws:iam::123456789012:role/r", "model_id": "amazon.titan-embed-text-v2:0"},
    "sagemaker": {"model_name": "minilm", "max_job_hours": 2.0},
    "aws_batch": {"job_queue": "q", "image": "i"},
    "gateway": {"base_url": "http://127.0.0.1:8000"},
}
ANSWERS = {
    "gpu": ("own/model", None, False),
    "ray": ("own/model", None, False),
    "bedrock": ("amazon.titan-embed-text-v2:0", None, False),
    "sagemaker": ("minilm", 2.0, True),
    "aws_batch": ("own/model", None, True),
    "gateway": ("own/model", None, False),
}


@pytest.mark.parametrize("kind", EXECUTOR_SETTINGS)
def test_every_executor_answers_what_any_can_be_asked(kind: str) -> None:
    values = {
        "source": {"uri": "in"},
        "output": {"root": "out"},
        "model": {"id": "own/model"},
        "executor": {"type": kind, **MODELS.get(kind, {})},
    }
    settings = parse_pipeline(values, "texts", "a test")
    executor = settings.executor
    assert (settings.model_name, executor.longest_job_hours, executor.paid_by_time) == ANSWERS[kind]


@pytest.mark.parametrize("kind", ["bedrock", "sagemaker"])
def test_a_staging_area_that_no_service_takes_is_refused_with_the_reason(kind: str) -> None:
    values = {"type": kind, **MODELS[kind], "staging": "s3://bucket/day=1/"}
    with pytest.raises(ValueError, match=r"write s3://bucket/prefix/.*the service takes no others"):
        EXECUTOR_SETTINGS[kind].model_validate(values)
