"""Which answers of a whole job tell something of the settings: not what the service may do in a while."""

import pytest

from batch_assets.control.whole_failures import same_answer

ROLE = "User: arn:aws:sts::123456789012:assumed-role/internal-batch/timeout"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("service_429", "Rate exceeded"),
        ("service_ThrottlingException", "Rate exceeded"),
        ("service_503", "Please try again later"),
        ("service_ModelNotReadyException", "The model is not ready"),
        ("service_500", "A problem occurred"),
        ("service_408", "A problem occurred"),
        ("service_400", "ThrottlingException: Rate exceeded"),
        ("job_failed", "CapacityError: Unable to provision requested ML compute capacity"),
        ("job_failed", "InternalServerError: We encountered an internal error. Please try again."),
        ("fetch_error", "images.example.com answers HTTP 503"),
        ("fetch_timeout", "images.example.com does not deliver in time (5 s to connect, 60 s in all)"),
        ("missing_result", "the results have no line for this record"),
    ],
)
def test_what_passes_counts_for_nothing(code: str, message: str) -> None:
    assert same_answer({(code, message): 12}, 12) is None


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("service_403", "You do not have access to the model with the specified model ID."),
        ("service_AccessDeniedException", f"{ROLE} is not authorized to perform kms:Decrypt"),
        ("job_failed", f"{ROLE} is not authorized to perform kms:Decrypt"),
        ("job_failed", "AccessDenied reading s3://acme-internal-error/capacity/in.jsonl"),
        ("job_failed", "The role 'internal-error-unavailable' can't be assumed; it isn't trusted"),
        ("object_failed", "AlgorithmError: See job logs for more information"),
    ],
)
def test_what_all_jobs_share_counts(code: str, message: str) -> None:
    answer = same_answer({(code, message): 12}, 12)
    assert answer is not None and answer.message == message


def test_a_host_that_is_left_alone_is_the_same_answer_as_its_failures() -> None:
    refused = "s3://images: access denied"
    resting = f"{refused}. It failed many times in a row, and s3://images is left alone for a while"
    answer = same_answer({("fetch_error", refused): 24, ("fetch_error", resting): 76}, 100)
    assert answer is not None
