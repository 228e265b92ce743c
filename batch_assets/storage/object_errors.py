"""Turns an object store's error into one for a person: what the store said, then what to do about it.

The class says whether waiting may help: it may for a StorageError, and cannot for a LastingStorageError or a
ConfigurationError; CredentialsRefused may pass once somebody renews them. `object_answers.py` reads the answer.
"""

from dataclasses import dataclass

from batch_assets.errors import (
    BatchAssetsError,
    ConfigurationError,
    CredentialsRefused,
    LastingStorageError,
    StorageError,
)
from batch_assets.storage.object_answers import Answer, parse_answer


@dataclass(frozen=True, slots=True)
class _Meaning:
    kind: type[BatchAssetsError]
    step: str


def _meanings(kind: type[BatchAssetsError], step: str, *codes: str) -> dict[str, _Meaning]:
    return dict.fromkeys(codes, _Meaning(kind, step))


_AWAY = _Meaning(StorageError, "the store cannot serve this now; go on with the same command in a while")
_REFUSED = _Meaning(LastingStorageError, "the store refuses this request; correct what it names")
_REGION = _Meaning(ConfigurationError, "the bucket lies in another region; set AWS_REGION to the bucket's")
_CHECKSUM = _Meaning(
    ConfigurationError,
    "where the bucket wants checksums (Object Lock does), set AWS_CHECKSUM_ALGORITHM=SHA256",
)
_KMS = _Meaning(
    ConfigurationError,
    "allow kms:Decrypt and kms:GenerateDataKey on the bucket's KMS key, and see that the key is enabled",
)
_NO_SUCH_REQUEST = _Meaning(
    ConfigurationError,
    "the store does not know this request; use one that takes conditional writes (If-None-Match, If-Match) and "
    "deletes many objects at once",
)
_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, or AWS_PROFILE",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, or AZURE_STORAGE_SAS_TOKEN",
}
_ALLOWED = {
    "s3": "allow s3:ListBucket on the bucket, and s3:GetObject, s3:PutObject and s3:DeleteObject on what is in it",
    "gs": "allow storage.objects.list, .get, .create and .delete there (Storage Object User)",
    "az": "give access to the container's blobs (Storage Blob Data Contributor)",
}
_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound")
_NO_UPLOAD = "NoSuchUpload"
_MISSING = ("NoSuchKey", "BlobNotFound", "CannotVerifyCopySource")
_MEANINGS = {
    **_meanings(ConfigurationError, "there is no such bucket; create it, or correct its name", *_NO_BUCKET),
    **_meanings(
        ConfigurationError,
        "set this machine's clock, best by NTP",
        "RequestTimeTooSkewed",
        "RequestExpired",
        "RequestInTheFuture",
    ),
    **_meanings(
        CredentialsRefused,
        "the credentials have expired; renew them",
        "ExpiredToken",
        "ExpiredTokenException",
        "TokenRefreshRequired",
        "InvalidToken",
    ),
    **_meanings(
        CredentialsRefused,
        "the access key is unknown; check AWS_ACCESS_KEY_ID or AWS_PROFILE",
        "InvalidAccessKeyId",
    ),
    **_meanings(
        ConfigurationError,
        "the secret key does not fit the access key; check AWS_SECRET_ACCESS_KEY",
        "SignatureDoesNotMatch",
    ),
    **_meanings(
        LastingStorageError,
        "the object is archived; restore it (on S3 `aws s3api restore-object`), then go on with the same command",
        "InvalidObjectState",
        "BlobArchived",
        "BlobBeingRehydrated",
    ),
    **_meanings(
        LastingStorageError,
        "the upload was ended by somebody else; go on with the same command",
        _NO_UPLOAD,
    ),
    **dict.fromkeys(
        ("PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed", "IncorrectEndpoint"),
        _REGION,
    ),
    **dict.fromkeys(
        (
            *("RequestTimeout", "SlowDown", "ServiceUnavailable", "InternalError", "RequestLimitExceeded"),
            *("OperationAborted", "ConditionalRequestConflict", "ServerBusy", "OperationTimedOut"),
        ),
        _AWAY,
    ),
    **dict.fromkeys(("NotImplemented", "501 Not Implemented"), _NO_SUCH_REQUEST),
}


def explain(uri: str, error: Exception) -> Exception:
    """Return the error to raise in place of obstore's.

    That is FileNotFoundError where there is no such object, and `error` itself where a condition of the request is
    not met (the object exists, or has changed) or where it is none of obstore's.
    """
    from obstore.exceptions import BaseError, InvalidPathError

    # obstore's writer says the same as a plain OSError.
    if not isinstance(error, BaseError | OSError):
        return error
    answer = parse_answer(error)
    if isinstance(error, FileNotFoundError) and _is_missing_object(answer):
        return FileNotFoundError(uri)
    if _is_unmet_condition(error, answer):
        return error
    if isinstance(error, InvalidPathError):
        return LastingStorageError(
            f"{uri}: a key there has an empty part, '.' or '..'; rename that object ({answer.message})"
        )
    meaning = _meaning(answer, uri.partition("://")[0])
    return meaning.kind(f"{uri}: {answer}; {meaning.step}")


def refused_settings(uri: str, error: Exception) -> ConfigurationError:
    """Return the error to raise where obstore refuses the settings of a store, before any request is sent."""
    return ConfigurationError(
        f"{uri}: {parse_answer(error)}; correct the environment variables of the store (AWS_…, GOOGLE_…, AZURE_…)"
    )


def is_silent_refusal(error: Exception) -> bool:
    """Whether a HEAD request was refused: such an answer has no body, so that the reason takes a GET to learn."""
    answer = parse_answer(error)
    return answer.method == "HEAD" and 400 <= answer.status < 500 and answer.status not in (404, 408, 429)


def is_missing_upload(error: Exception) -> bool:
    """Whether the store knows no such upload: somebody aborted it, or it is complete and the answer was lost."""
    return parse_answer(error).code == _NO_UPLOAD


def _is_unmet_condition(error: Exception, answer: Answer) -> bool:
    """Whether a condition was not met: the object exists, or has changed. 409, and 412 at Azure, can mean more."""
    if type(error).__name__ == "AlreadyExistsError":
        return answer.status in (304, 412) or answer.code in ("BlobAlreadyExists", "409 Conflict")
    unrelated = answer.code in _NO_BUCKET or answer.code.startswith("Lease")
    return type(error).__name__ == "PreconditionError" and not unrelated


def _is_missing_object(answer: Answer) -> bool:
    """Whether a 404 is about the object itself. A write needs no object: a 404 to one is about something else."""
    if answer.code in (*_NO_BUCKET, _NO_UPLOAD):
        return False
    return answer.code in _MISSING or answer.method not in ("PUT", "POST")


def _meaning(answer: Answer, scheme: str) -> _Meaning:
    code, status, words = answer.code, answer.status, answer.message.lower()
    if code.startswith("KMS.") or "kms:" in words:
        return _KMS
    if code == "InvalidRequest" and ("checksum" in words or "content-md5" in words):
        return _CHECKSUM
    if code in _MEANINGS:
        return _MEANINGS[code]
    if "redirect without location" in words or 300 <= status < 400:
        return _REGION
    if status in (408, 429) or status >= 500:
        return _AWAY
    if status == 401:
        return _Meaning(ConfigurationError, f"check {_CREDENTIALS[scheme]}")
    if status == 403 or code == "AccessDenied":
        return _Meaning(ConfigurationError, _ALLOWED[scheme])
    if status == 404:
        return _Meaning(ConfigurationError, "check the bucket's name and the store's endpoint")
    if status:
        return _REFUSED
    if "credential" in words or "token" in words:
        return _Meaning(StorageError, f"check the network, and set {_CREDENTIALS[scheme]}")
    if "certificate" in words or "builder error" in words:  # the same tomorrow
        return _Meaning(ConfigurationError, "correct the store's endpoint, or trust its certificate")
    endpoint = " and AWS_ENDPOINT_URL" if scheme == "s3" else ""
    return _Meaning(StorageError, f"check the network{endpoint}, then try again")
