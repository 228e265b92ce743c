"""Errors of single records: which end a record for good, and which are tried again."""

from typing import Any

import pytest

from batch_assets.executors.bedrock.record_errors import judge
from batch_assets_tests.executors.bedrock.builders import error


@pytest.mark.parametrize(
    ("told", "final", "code"),
    [
        (error(400, "Malformed input request"), True, "service_400"),
        (error("400", "Malformed input request"), True, "service_400"),
        (error(400, "bad request", retryable=False, expired=False), True, "service_400"),
        (error(403, "cachePoint is not supported"), True, "service_403"),
        (error(404, "no such model"), True, "service_404"),
        (error("ValidationException", "extra inputs are not permitted"), True, "service_ValidationException"),
        (error("AccessDeniedException", "no"), True, "service_AccessDeniedException"),
        (error(400, "whatever", retryable=True), False, "service_400"),
        (error(403, "whatever", expired=True), False, "expired"),
        (error(400, "The record expired before it was processed."), False, "service_400"),
        (error(408, "model timeout"), False, "service_408"),
        (error(429, "Too many requests"), False, "service_429"),
        (error("429", "Too many tokens, please wait before trying again."), False, "service_429"),
        (error("ThrottlingException", "Rate exceeded"), False, "service_ThrottlingException"),
        (error(400, "ThrottlingException: slow down"), False, "service_400"),
        (error(424, "Model timed out"), False, "service_424"),
        (error(500, "internal"), False, "service_500"),
        (error(503, "unavailable", retryable=False), False, "service_503"),
        (error(None, "who knows"), False, "service_error"),
        ({}, False, "service_error"),
        ("a sentence", False, "service_error"),
    ],
)
def test_verdicts(told: Any, final: bool, code: str) -> None:
    verdict = judge(told, truncate=True)
    assert (verdict.final, verdict.code) == (final, code)


@pytest.mark.parametrize(
    "message",
    [
        "Too many input tokens. Max input tokens: 8192, request input token count: 9001",
        "Malformed input request: expected maxLength: 50000, actual: 50001, please reformat your input",
        "Input is too long for requested model.",
        "input length and `max_tokens` exceed context limit: 199999 + 4096 > 200000",
        "This model's maximum context length is 8192 tokens",
    ],
)
def test_too_long_a_text_goes_again_where_it_may_be_cut(message: str) -> None:
    assert judge(error(400, message), truncate=True).final is False
    assert judge(error(400, message), truncate=False).final is True
    assert {judge(error(400, message), truncate=cut).code for cut in (True, False)} == {"too_long"}
