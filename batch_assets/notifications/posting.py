"""One JSON body to one URL, for the targets that are web hooks.

By `requests`, which Dagster brings: it goes by HTTPS_PROXY, NO_PROXY and REQUESTS_CA_BUNDLE, as a
company's network asks. Its own retries are off, since they log the URL, and a hook's URL is a secret. Nor do we
use its reading of ~/.netrc: what stands there is meant for other programs.
"""

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from batch_assets.notifications.base import DeliveryError
from batch_assets.retry_policy import HOOK_FIRST_PAUSE_SECONDS, HOOK_PAUSES_GROW_BY, HOOK_TRIES

if TYPE_CHECKING:
    import requests

CONNECT_SECONDS = 3.0
ANSWER_SECONDS = 5.0
# The server says that it has not taken it. After any other failure it may have, and is not asked again.
NOT_TAKEN = {429, 502, 503}


class _NotTaken(DeliveryError):
    """The server cannot have taken it."""


def host_of(url: str) -> str:
    """The host of a hook's URL: the part that may be shown."""
    return urlsplit(url).hostname or "?"


def post_json(url: str, body: dict[str, Any]) -> None:
    """POST `body` to `url`, three times at most. Raises DeliveryError, which names the host alone.

    Tried again only where the server cannot have taken it, so that nobody is told twice.
    Redirects are not followed: a hook that has moved is for its owner to write anew.
    """
    import tenacity

    tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(_NotTaken),
        stop=tenacity.stop_after_attempt(HOOK_TRIES),
        wait=tenacity.wait_exponential(HOOK_FIRST_PAUSE_SECONDS, exp_base=HOOK_PAUSES_GROW_BY),
        reraise=True,
    )(_post, url, body)


def _post(url: str, body: dict[str, Any]) -> None:
    """One attempt. Raises DeliveryError, and _NotTaken where it may be tried again."""
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
                return
            kind = _NotTaken if answer.status_code in NOT_TAKEN else DeliveryError
            failure = kind(f"{host} answers HTTP {answer.status_code}")
    except requests.ReadTimeout:
        failure = DeliveryError(f"{host} does not answer within {ANSWER_SECONDS:g} s")
    except requests.ConnectionError as error:
        kind = _NotTaken if _never_sent(error) else DeliveryError
        failure = kind(f"{host} cannot be reached: {_kind(error)}")
    except requests.RequestException as error:
        failure = DeliveryError(f"{host} cannot be asked: {_kind(error)}")
    # Raised here: what it came of quotes the URL, and is not to be told with it.
    raise failure


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
