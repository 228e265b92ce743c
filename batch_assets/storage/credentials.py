"""The way to AWS for whoever goes there: endpoint, region and credentials, from the environment or botocore's chain.

Credentials are not read once and kept: a person, or a program, may write new ones into their file while a run goes on.
"""

import datetime
import functools
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batch_assets.errors import ConfigurationError
from batch_assets.plain_text import plain_logger

TRUST_SECONDS = 60.0
"""obstore asks again within this time, and at once where it is under its own five minutes."""
_FILES = (("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"), ("AWS_CONFIG_FILE", "~/.aws/config"))
logger = plain_logger(__name__)


class RenewableCredentials:
    """What botocore's chain finds, found anew where a file of it has changed or `renew` was called.

    botocore itself keeps what it has read from a file, or from a process that names no end, as long as its
    session lives. Goes wherever botocore wants credentials.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._found: Any = None
        self._read_at: object = None

    def current(self) -> Any:
        """Botocore's credentials of now; None where there are none."""
        with self._lock:
            state = tuple(map(_state, _FILES))
            if self._found is None or self._read_at != state:
                self._find()
                self._read_at = state
            return self._found

    def _find(self) -> None:
        import boto3

        try:
            found = boto3.Session().get_credentials()
        except Exception as error:
            if self._found is None:
                raise
            # A file that is being written; or a process that fails once.
            logger.warning("AWS credentials: %s; those of before are kept", error)
            return
        self._found = found or self._found

    def renew(self) -> None:
        """Find them anew at the next use: a service says that these have run out."""
        with self._lock:
            self._read_at = None

    def get_frozen_credentials(self) -> Any:
        """For botocore, whenever it signs."""
        return self.current().get_frozen_credentials()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.current(), name)

    def for_obstore(self) -> dict[str, Any]:
        """For obstore, whenever it is not sure any more."""
        frozen = self.get_frozen_credentials()
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=TRUST_SECONDS),
        }


class _Provider:
    """Our credentials in botocore's chain, before all that it would keep."""

    METHOD = CANONICAL_NAME = "batch-assets"

    def load(self) -> RenewableCredentials | None:
        credentials = _renewable(_environment())
        return None if credentials.current() is None else credentials


def aws_session() -> Any:
    """A boto3 session whose clients sign with the credentials of the moment."""
    import boto3
    import botocore.session

    session = botocore.session.Session()
    session.register_component("data_loader", _loader())
    if not _has_own_credentials():
        session.get_component("credential_provider").insert_before("env", _Provider())
    return boto3.Session(botocore_session=session)


@functools.cache
def _loader() -> Any:
    """What reads botocore's own descriptions of services: each session's own would parse megabytes again."""
    import botocore.session

    return botocore.session.Session().get_component("data_loader")


def renew_credentials() -> None:
    """Have the credentials read again before the next call: AWS says that they have run out."""
    _renewable(_environment()).renew()


def are_renewable() -> bool:
    """Whether somebody can renew the credentials of this process while it runs."""
    return not _has_own_credentials()


def _has_own_credentials() -> bool:
    """Whether this process's environment holds the credentials, or says that none are wanted: nobody changes that."""
    return bool(os.environ.get("AWS_ACCESS_KEY_ID") or os.environ.get("AWS_SKIP_SIGNATURE"))


def _environment() -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, value) for name, value in os.environ.items() if name.startswith("AWS_")))


@functools.lru_cache(maxsize=16)
def _renewable(environment: tuple[tuple[str, str], ...]) -> RenewableCredentials:
    """One for all of the process, as long as its environment stays the same."""
    return RenewableCredentials()


def _state(file: tuple[str, str]) -> object:
    path = Path(os.environ.get(file[0]) or file[1]).expanduser()
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


@dataclass(frozen=True)
class S3Access:
    """`endpoint` and `region` are empty where nothing names one. Without `credentials` the environment has them."""

    endpoint: str
    region: str
    credentials: RenewableCredentials | None

    @property
    def allows_http(self) -> bool:
        return self.endpoint.startswith("http://")


def s3_access(bucket: str) -> S3Access:
    """How S3 is reached. Raises ConfigurationError for an endpoint that is no URL, and without any credentials."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", "")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or ""
    if endpoint and not endpoint.startswith(("http://", "https://")):
        raise ConfigurationError(
            f"AWS_ENDPOINT_URL: {endpoint!r} is no URL; write http://host:port or https://host"
        )
    if _has_own_credentials():
        return S3Access(endpoint, region, None)
    # Profiles, SSO and roles are botocore's business; obstore and deltalake alone know only the environment.
    import boto3

    credentials = _renewable(_environment())
    if credentials.current() is None:
        raise ConfigurationError(
            f"s3://{bucket}: no AWS credentials were found; set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE (AWS_SKIP_SIGNATURE=true for a public bucket)"
        )
    return S3Access(endpoint, region or boto3.Session().region_name or "", credentials)


def library_options(uri: str) -> dict[str, str]:
    """What deltalake is to be told beside what it takes from the environment itself. Raises as `s3_access` does."""
    if not uri.startswith("s3://"):
        return {}
    access = s3_access(uri.removeprefix("s3://").partition("/")[0])
    options = {"AWS_ENDPOINT_URL": access.endpoint, "AWS_REGION": access.region}
    if access.allows_http:
        options["AWS_ALLOW_HTTP"] = "true"
    if access.credentials is not None:
        frozen = access.credentials.get_frozen_credentials()
        options["AWS_ACCESS_KEY_ID"] = frozen.access_key
        options["AWS_SECRET_ACCESS_KEY"] = frozen.secret_key
        options["AWS_SESSION_TOKEN"] = frozen.token or ""
    return {name: value for name, value in options.items() if value}
