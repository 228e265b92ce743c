"""Images as data URLs, fetched from where their records say they are."""

import asyncio
import base64
from concurrent.futures import ThreadPoolExecutor

from batch_assets.worker.fetching import Fetcher, Fetching
from batch_assets.worker.not_fetched import NO_IMAGE, NotFetched

FETCHES_AT_ONCE = 32
_KINDS = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"GIF8", "image/gif"),
    (b"BM", "image/bmp"),
)
"""How files of a kind begin."""


class Images:
    """Fetches images in threads; `stop` ends what is under way."""

    def __init__(self, fetching: Fetching) -> None:
        self._fetcher = Fetcher(fetching)
        self._threads = ThreadPoolExecutor(FETCHES_AT_ONCE, thread_name_prefix="images")

    async def data_url(self, image: bytes | str) -> str:
        """The image, whole or by its location, as a data URL. Raises NotFetched."""
        content = image
        if isinstance(content, str):
            content = await asyncio.get_running_loop().run_in_executor(
                self._threads, self._fetcher.fetch, content
            )
        return f"data:{kind_of(content)};base64,{base64.b64encode(content).decode()}"

    def stop(self) -> None:
        self._fetcher.stop()
        self._threads.shutdown(wait=False, cancel_futures=True)


def kind_of(content: bytes) -> str:
    """The media type that a file's first bytes tell. Raises NotFetched for what servers do not take."""
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "image/webp"
    for beginning, kind in _KINDS:
        if content.startswith(beginning):
            return kind
    raise NotFetched(NO_IMAGE, f"the file is no JPEG, PNG, WebP, GIF or BMP: it begins with {content[:8]!r}")
