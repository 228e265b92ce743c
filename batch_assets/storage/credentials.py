"""The way to an object store for libraries that open it themselves: as our own storage finds it."""

import os


def library_options(uri: str) -> dict[str, str]:
    """What deltalake is to be told beside what it takes from the environment itself."""
    if not uri.startswith("s3://"):
        return {}
    options: dict[str, str] = {}
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", "")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if endpoint:
        options["AWS_ENDPOINT_URL"] = endpoint
    if endpoint.startswith("http://"):
        options["AWS_ALLOW_HTTP"] = "true"
    if not os.environ.get("AWS_ACCESS_KEY_ID") and not os.environ.get("AWS_SKIP_SIGNATURE"):
        import boto3

        session = boto3.Session()
        region = region or session.region_name
        if (credentials := session.get_credentials()) is not None:
            frozen = credentials.get_frozen_credentials()
            named = {
                "AWS_ACCESS_KEY_ID": frozen.access_key,
                "AWS_SECRET_ACCESS_KEY": frozen.secret_key,
                "AWS_SESSION_TOKEN": frozen.token,
            }
            options |= {name: value for name, value in named.items() if value}
    if region:
        options["AWS_REGION"] = region
    return options
