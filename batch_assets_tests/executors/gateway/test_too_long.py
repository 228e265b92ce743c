"""What servers say of texts that are too long, and how the longest part that they take is found."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_assets.executors.gateway.too_long import Cut, TooMany, too_many_tokens
from batch_assets.gateway.verdicts import Judgement, Verdict

VLLM = (
    "This model's maximum context length is 512 tokens. However, you requested 513 tokens in the input for embedding "
    "generation. Please reduce the length of the input."
)
OPENAI = (
    "This model's maximum context length is 8192 tokens, however you requested 9001 tokens (9001 in your prompt; 0 for "
    "the completion). Please reduce your prompt; or completion length."
)
CHAT = (
    "This model's maximum context length is 4096 tokens. However, your messages resulted in 4,321 tokens. Please "
    "reduce the length of the messages."
)
TEI = "Input validation error: `inputs` must have less than 512 tokens. Given: 600"
LLAMA = "input is too large to process. increase the physical batch size"
SGLANG = "The input (700 tokens) is longer than the model's context length (512 tokens)."


@pytest.mark.parametrize(
    ("status", "message", "limit"),
    [
        (400, VLLM, 512),
        (400, OPENAI, 8192),
        (400, CHAT, 4096),
        (413, TEI, 512),
        (422, TEI, 512),
        (400, SGLANG, 512),
    ],
)
def test_servers_say_that_a_text_is_too_long_each_in_its_way(status: int, message: str, limit: int) -> None:
    found = too_many_tokens(Judgement(Verdict.WRONG, status, "", message))
    assert found is not None and found.limit == limit


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, "dimensions is currently not supported"),
        (401, "Incorrect API key provided, your key is too long"),
        (422, "input.0: Input should be a valid string"),
        (500, "maximum context length"),
    ],
)
def test_other_refusals_are_not_taken_for_it(status: int, message: str) -> None:
    assert too_many_tokens(Judgement(Verdict.WRONG, status, "", message)) is None


@given(st.text(alphabet="ab ", min_size=30, max_size=400), st.integers(1, 8), st.booleans())
def test_the_longest_beginning_that_is_taken_is_found(text: str, limit: int, told: bool) -> None:
    """Whether the server tells numbers or not; of a text that it does not take whole."""

    def tokens(part: str) -> int:
        return len(part.split()) + 1

    if tokens(text) <= limit:
        return
    cut = Cut(text, TooMany(limit, tokens(text)) if told else TooMany(None, None))
    best = ""
    while (part := cut.next()) is not None:
        assert 0 < len(part) < len(text)
        if tokens(part) <= limit:
            best = max(best, part, key=len)
            cut.taken(tokens(part) if told else 0)
        else:
            cut.refused(TooMany(limit, tokens(part)) if told else TooMany(None, None))
    longest = max(
        (tokens(text[:length]) for length in range(1, len(text)) if tokens(text[:length]) <= limit), default=0
    )
    assert (tokens(best) if best else 0) == longest
