"""What object stores say, in one sentence with the bucket, the reason and the next step."""

from batch_assets.errors import ConfigurationError, StorageError

# What an answer contains → what to say of it. The first match counts.
_CONFIGURATION = (
    ("NoSuchBucket", "there is no such bucket; create it, or correct its name"),
    ("InvalidAccessKeyId", "the access key is unknown; check AWS_ACCESS_KEY_ID or AWS_PROFILE"),
    ("SignatureDoesNotMatch", "the secret key does not fit the access key; check AWS_SECRET_ACCESS_KEY"),
    ("ExpiredToken", "the credentials have expired; renew them"),
    ("redirect", "the bucket lies in another region; set AWS_REGION to the bucket's"),
    ("401 Unauthorized", "the credentials were refused; check the credentials in use"),
    ("403 Forbidden", "access is denied; it takes s3:ListBucket, s3:GetObject and s3:PutObject there"),
    ("credential", "no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"),
)  # fmt: skip


def explain(uri: str, error: Exception) -> Exception:
    """The error to raise in place of obstore's; the same one where callers know what to do with it."""
    from obstore.exceptions import BaseError, InvalidPathError

    text = str(error)
    if "NoSuchBucket" in text:
        return ConfigurationError(f"{uri}: {_CONFIGURATION[0][1]}")
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(uri)
    # obstore's writer says the same as a plain OSError.
    if not isinstance(error, BaseError | OSError):
        return error
    if isinstance(error, InvalidPathError):
        return StorageError(
            f"{uri}: a key there has an empty part, '.' or '..'; rename that object ({text.splitlines()[0]})"
        )
    if type(error).__name__ in ("AlreadyExistsError", "PreconditionError"):
        return error
    for mark, sentence in _CONFIGURATION:
        if mark in text:
            return ConfigurationError(f"{uri}: {sentence}")
    reason = text.split("\n", 1)[0].removeprefix("Generic S3 error: ")
    return StorageError(f"{uri}: {reason[:300]}; check the network and AWS_ENDPOINT_URL, then try again")
