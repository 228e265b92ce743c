"""One JSON body to one URL, for the targets that are web hooks.

By `requests`, which Dagster brings: it goes by HTTPS_PROXY, NO_PROXY and REQUESTS_CA_BUNDLE, as a
company's network asks. Its own retries are off, since they log the URL, and a hook's URL is a secret. Nor do we
use its reading of ~/.netrc: what stands there is meant for other programs.
"""

import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from batch_assets.notifications.base import DeliveryError

if TYPE_CHECKING:
    import requests

CONNECT_SECONDS = 3.0
ANSWER_SECONDS = 5.0
PAUSES_SECONDS = (0.5, 1.5)  # before the second and the third attempt, which is the last
# The server says that it has not taken it. After any other failure it may have, and is not asked again.
NOT_TAKEN = {429, 502, 503}


def host_of(url: str) -> str:
    """The host of a hook's URL: the part that may be shown."""
    return urlsplit(url).hostname or "?"


def post_json(url: str, body: dict[str, Any]) -> None:
    """POST `body` to `url`, three times at most. Raises DeliveryError, which names the host alone.

    Tried again only where the server cannot have taken it, so that nobody is told twice.
    Redirects are not followed: a hook that has moved is for its owner to write anew.
    """
    for pause in (*PAUSES_SECONDS, None):
        failure, again = _post(url, body)
        if failure is None:
            return
        if not again or pause is None:
            raise DeliveryError(failure)
        time.sleep(pause)


def _post(url: str, body: dict[str, Any]) -> tuple[str | None, bool]:
    """One attempt: why it failed (None: it did not), and whether to try again."""
    import requests

    host = host_of(url)
    own = requests.utils.get_auth_from_url(url)
    try:
        # Streamed and closed unread: what a hook answers beyond its status is of no use here.
        with requests.post(
            url,
            json=body,
            auth=own if any(own) else _anonymous,
            timeout=(CONNECT_SECONDS, ANSWER_SECONDS),
            allow_redirects=False,
            stream=True,
        ) as answer:
            if 200 <= answer.status_code < 300:
                return None, False
            return f"{host} answers HTTP {answer.status_code}", answer.status_code in NOT_TAKEN
    except requests.ReadTimeout:
        return f"{host} does not answer within {ANSWER_SECONDS:g} s", False
    except requests.ConnectionError as error:
        return f"{host} cannot be reached: {_kind(error)}", _never_sent(error)
    except requests.RequestException as error:
        return f"{host} cannot be asked: {_kind(error)}", False


def _anonymous(request: "requests.PreparedRequest") -> "requests.PreparedRequest":
    return request


def _never_sent(error: Exception) -> bool:
    """Whether no connection came about, by which the body could have gone out."""
    import requests
    import urllib3.exceptions

    reason = getattr(error.args[0] if error.args else None, "reason", None)
    return isinstance(error, requests.ConnectTimeout) or isinstance(
        reason, urllib3.exceptions.NewConnectionError
    )


def _kind(error: Exception) -> str:
    """The innermost known cause by its class; the text would repeat the URL."""
    reason = getattr(error.args[0] if error.args else None, "reason", None)
    return type(reason or error).__name__
