"""What servers' answers mean, by status, headers and what the body says."""

import time
from email.utils import formatdate

import pytest
from multidict import CIMultiDict

from batch_assets.gateway.client import Answer
from batch_assets.gateway.verdicts import Verdict, judge

OPENAI = b'{"error": {"message": "No room now.", "type": "requests", "param": null, "code": "rate_limit_exceeded"}}'


def answer(status: int, body: bytes = b"", **headers: str) -> Answer:
    return Answer(
        status, CIMultiDict({name.replace("_", "-"): value for name, value in headers.items()}), body
    )


@pytest.mark.parametrize(
    ("given", "verdict"),
    [
        (answer(200, b'{"data": []}'), Verdict.DONE),
        (answer(200, b"<html>Welcome</html>"), Verdict.DONE),  # whoever reads it finds out
        (answer(200, b' {"error": {"message": "the engine died"}}'), Verdict.BROKEN),
        (answer(200, b'{"error": {"message": "too many", "code": 429}}'), Verdict.REFUSED),
        (answer(200, b'{"error": {"message": "bad text", "code": 400}}'), Verdict.WRONG),
        (answer(204), Verdict.BROKEN),
        (answer(302), Verdict.WRONG),
        (answer(400, OPENAI), Verdict.WRONG),
        (answer(408), Verdict.BROKEN),
        (answer(409), Verdict.BROKEN),
        (answer(429, OPENAI), Verdict.REFUSED),
        (answer(500), Verdict.BROKEN),
        (answer(503), Verdict.REFUSED),
        (answer(500, x_llm_d_request_dropped_reason="rejected-saturated"), Verdict.REFUSED),
    ],
)
def test_an_answer_is_done_refused_broken_or_wrong(given: Answer, verdict: Verdict) -> None:
    assert judge(given).verdict is verdict


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        (OPENAI, "rate_limit_exceeded", "No room now."),
        (b'{"error": "Model not loaded"}', "", "Model not loaded"),
        (b'{"detail": "Not Found"}', "", "Not Found"),
        (b'{"object": "error", "message": "too long", "code": 400}', "400", "too long"),
        (b"<html>Bad  gateway</html>", "", "<html>Bad gateway</html>"),
        (b"\xff", "", "\ufffd"),
        (b"[1]", "", "[1]"),
        (b"x" * 10_000, "", "x" * 300 + "…"),
    ],
)
def test_the_servers_own_words_are_kept(body: bytes, code: str, message: str) -> None:
    judged = judge(answer(400, body))
    assert (judged.code, judged.message) == (code, message)


@pytest.mark.parametrize(
    ("headers", "least", "most"),
    [
        ({"Retry_After": "7"}, 7, 7),
        ({"Retry_After": "0.5"}, 0.5, 0.5),
        ({"retry_after_ms": "250"}, 0.25, 0.25),
        ({"Retry_After": formatdate(time.time() + 3600, usegmt=True)}, 60, 3600),
        ({"Retry_After": formatdate(0, usegmt=True)}, 0, 0),
    ],
)
def test_when_to_come_again_is_read_in_each_of_its_forms(
    headers: dict[str, str], least: float, most: float
) -> None:
    pause = judge(answer(429, **headers)).pause
    assert pause is not None and least <= pause <= most


@pytest.mark.parametrize("value", ["soon", "", "-"])
def test_what_says_no_time_is_no_pause(value: str) -> None:
    assert judge(answer(429, Retry_After=value)).pause is None
