"""Why an image cannot be had from where its record says it is."""

from batch_assets.errors import BatchAssetsError

NO_IMAGE = "no_image"
IMAGE_MISSING = "image_missing"
PRIVATE_ADDRESS = "private_address"
BAD_URL = "bad_url"
IMAGE_TOO_LARGE = "image_too_large"
FETCH_TIMEOUT = "fetch_timeout"
FETCH_ERROR = "fetch_error"
FAILED = (FETCH_TIMEOUT, FETCH_ERROR)


class NotFetched(BatchAssetsError):
    """`code` is one of the above: FAILED ones may be otherwise another day, the others are bad input.

    `again`: trying again soon may help, after `pause` seconds where the server names them. `down`: the
    server, or the way to it, is out of order, whichever file is asked for.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        again: bool = False,
        pause: float | None = None,
        down: bool = False,
    ) -> None:
        super().__init__(message)
        self.code, self.again, self.pause, self.down = code, again, pause, down

    @property
    def rejected(self) -> bool:
        return self.code not in FAILED
