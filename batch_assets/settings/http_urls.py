"""URLs that are called over HTTP, as fields of settings: a page, and a model server's base URL."""

import re
from typing import Annotated
from urllib.parse import urlsplit

import pydantic


def _page(url: str) -> str:
    try:
        parts = urlsplit(url)
        is_one = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, a bracket that is not closed
        is_one = False
    if not is_one or not re.fullmatch(r"[^\s#]+", url):
        raise ValueError("write http://host:port or https://host")
    return url


def _server(url: str) -> str:
    if not re.fullmatch(r"https?://[^/?#@\s]+(/[^?#\s]*)?", url):
        raise ValueError("write http://host:port or https://host, without user, password and query")
    return _page(url).rstrip("/").removesuffix("/v1")


PageURL = Annotated[str, pydantic.AfterValidator(_page)]
ServerURL = Annotated[str, pydantic.AfterValidator(_server)]
"""Without the `/v1` that paths of calls begin with."""
