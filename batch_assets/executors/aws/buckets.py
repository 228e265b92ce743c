"""Whether a bucket is there, may be looked at, and is in the region of the jobs."""

from typing import Any

from batch_assets.errors import ConfigurationError
from batch_assets.executors.aws.errors import common_step, error_code, status_code, told, unreachable
from batch_assets.plain_text import plain_logger

ELSEWHERE = frozenset(
    {
        "PermanentRedirect",
        "AuthorizationHeaderMalformed",
        "IllegalLocationConstraintException",
        "IncorrectEndpoint",
    }
)
"""What S3 calls a bucket of another region."""
logger = plain_logger(__name__)


def check_bucket(s3: Any, uri: str, region: str, service_name: str) -> None:
    """Raise ConfigurationError where the bucket of `uri` is missing, forbidden, or in another region."""
    bucket = uri.removeprefix("s3://").split("/", 1)[0]
    try:
        answer = s3.head_bucket(Bucket=bucket)
    except Exception as error:
        if status_code(error) == 0:
            raise unreachable(error) from error
        reason = _reason(s3, bucket, error)
        if status_code(error) == 404:
            raise ConfigurationError(
                f"executor.staging: {told(reason)}; there is no bucket {bucket}; create it, or name another"
            ) from error
        if error_code(reason) in ELSEWHERE or status_code(reason) in (301, 307):
            headers: Any = getattr(reason, "response", {}).get("ResponseMetadata", {}).get("HTTPHeaders", {})
            found = headers.get("x-amz-bucket-region") or "another region"
            raise _wrong_region(bucket, f"{found} ({told(reason)})", region, service_name) from error
        if status_code(error) == 400:
            step = common_step(reason) or "correct it, or name another bucket"
            raise ConfigurationError(f"executor.staging: bucket {bucket}: {told(reason)}; {step}") from error
        # Forbidden to look at is not forbidden to write to: the upload will tell.
        logger.debug("bucket %s: %s", bucket, told(reason))
        return
    found = answer.get("BucketRegion")
    if found and found != region:
        raise _wrong_region(bucket, found, region, service_name)


def _reason(s3: Any, bucket: str, error: Exception) -> Exception:
    """Why the bucket could not be looked at: an answer to HEAD has no room for it, so it is asked for by a GET."""
    try:
        s3.list_objects_v2(Bucket=bucket, MaxKeys=1)
    except Exception as reason:
        return error if status_code(reason) == 0 else reason
    return error


def _wrong_region(bucket: str, found: str, region: str, service_name: str) -> ConfigurationError:
    return ConfigurationError(
        f"executor.staging: bucket {bucket} is in {found}, jobs run in {region}, and {service_name} wants both in "
        "one; name a bucket there, or that region in executor.region"
    )
