"""The way to S3 for whoever opens it: endpoint, region and credentials, from the environment or botocore's chain."""

import os
from dataclasses import dataclass
from typing import Any

from batch_assets.errors import ConfigurationError


@dataclass(frozen=True)
class S3Access:
    """`endpoint` and `region` are empty where nothing names one. Without `session` the environment has credentials."""

    endpoint: str
    region: str
    session: Any

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
    if os.environ.get("AWS_ACCESS_KEY_ID") or os.environ.get("AWS_SKIP_SIGNATURE"):
        return S3Access(endpoint, region, None)
    # Profiles, SSO and roles are botocore's business; obstore and deltalake alone know only the environment.
    import boto3

    session = boto3.Session()
    if session.get_credentials() is None:
        raise ConfigurationError(
            f"s3://{bucket}: no AWS credentials were found; set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE (AWS_SKIP_SIGNATURE=true for a public bucket)"
        )
    return S3Access(endpoint, region or session.region_name or "", session)


def library_options(uri: str) -> dict[str, str]:
    """What deltalake is to be told beside what it takes from the environment itself. Raises as `s3_access` does."""
    if not uri.startswith("s3://"):
        return {}
    access = s3_access(uri.removeprefix("s3://").partition("/")[0])
    options = {"AWS_ENDPOINT_URL": access.endpoint, "AWS_REGION": access.region}
    if access.allows_http:
        options["AWS_ALLOW_HTTP"] = "true"
    if access.session is not None:
        frozen = access.session.get_credentials().get_frozen_credentials()
        options["AWS_ACCESS_KEY_ID"] = frozen.access_key
        options["AWS_SECRET_ACCESS_KEY"] = frozen.secret_key
        options["AWS_SESSION_TOKEN"] = frozen.token or ""
    return {name: value for name, value in options.items() if value}
