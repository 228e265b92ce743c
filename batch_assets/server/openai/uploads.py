"""A file in a multipart form, written to a store as it comes: no more of it is in memory than what came last."""

import hashlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from starlette.concurrency import run_in_threadpool

from batch_assets.requests.batches.files import Written
from batch_assets.server.answers import Refused
from batch_assets.storage import Output

MOST_FIELD_BYTES = 64 * 1024
WRITTEN_AT_ONCE = 2 * 2**20
LONGEST_FIRST_LINE = 2**20


class Upload:
    """What a form holds. `open_output` is called once, with the beginning of the file's first line."""

    def __init__(self, content_type: str, open_output: Callable[[bytes], Output], most_bytes: int) -> None:
        """Raises Refused where the content is no form."""
        from python_multipart.multipart import MultipartParser, parse_options_header

        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary")
        if kind != b"multipart/form-data" or not boundary:
            raise Refused(400, f"Content-Type {content_type[:100]!r}: send a form, multipart/form-data")
        self.fields: dict[str, str] = {}
        self.filename: str | None = None
        self.written: Written | None = None
        self._open_output = open_output
        self._most_bytes = most_bytes
        self._output: Output | None = None
        self._waiting: list[bytes] = []
        self._waiting_bytes = self._bytes = self._lines = 0
        self._ends_in_line = False
        self._digest = hashlib.sha256()
        self._ended = False
        self._part = _Part()
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin_part,
                "on_part_data": self._add_data,
                "on_part_end": self._end_part,
                "on_header_field": self._add_header_name,
                "on_header_value": self._add_header_value,
                "on_header_end": self._end_header,
                "on_end": self._end,
            },
        )

    async def receive(self, chunks: AsyncIterator[bytes]) -> None:
        """Take the whole form; the file is durable when this returns. Raises Refused, and leaves no file then."""
        from python_multipart.exceptions import FormParserError

        try:
            async for chunk in chunks:
                try:
                    self._parser.write(chunk)
                except FormParserError as error:
                    raise Refused(400, f"the form cannot be read: {error}") from None
                if self._bytes > self._most_bytes:
                    raise Refused(413, f"the file has more than {self._most_bytes:,} bytes")
                if self._waiting_bytes >= WRITTEN_AT_ONCE:
                    await run_in_threadpool(self._write)
            if not self._ended:
                raise Refused(400, "the form is cut short")
            if self.filename is None:
                raise Refused(400, "file: is missing from the form", param="file")
            await run_in_threadpool(self._close)
        except BaseException:
            if self._output is not None:
                await run_in_threadpool(self._output.abort)
            raise

    def _write(self) -> None:
        waiting, self._waiting, self._waiting_bytes = b"".join(self._waiting), [], 0
        if self._output is None:
            self._output = self._open_output(waiting[:LONGEST_FIRST_LINE])
        self._digest.update(waiting)
        self._lines += waiting.count(b"\n")
        self._ends_in_line = waiting[-1:] not in (b"", b"\n") if waiting else self._ends_in_line
        self._output.write(waiting)

    def _close(self) -> None:
        self._write()
        assert self._output is not None
        self._output.close()
        self.written = Written(self._bytes, self._lines + self._ends_in_line, self._digest.hexdigest())

    def _begin_part(self) -> None:
        self._part = _Part()

    def _add_header_name(self, data: bytes, start: int, end: int) -> None:
        self._part.header += data[start:end]
        self._part.check()

    def _add_header_value(self, data: bytes, start: int, end: int) -> None:
        self._part.value += data[start:end]
        self._part.check()

    def _end_header(self) -> None:
        from python_multipart.multipart import parse_options_header

        if self._part.header.lower() == b"content-disposition":
            _, options = parse_options_header(self._part.value)
            self._part.name = options.get(b"name", b"").decode("utf-8", "replace")
            if b"filename" in options:
                self._part.filename = options[b"filename"].decode("utf-8", "replace").replace("\0", "")
        self._part.header, self._part.value = b"", b""

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        if self._part.name == "file":
            self._waiting.append(data[start:end])
            self._waiting_bytes += end - start
            self._bytes += end - start
        else:
            self._part.data += data[start:end]
            self._part.check()

    def _end_part(self) -> None:
        if self._part.name != "file":
            self.fields[self._part.name] = self._part.data.decode("utf-8", "replace")
            if len(self.fields) > 20:
                raise Refused(400, "the form has too many fields")
        elif self.filename is not None:
            raise Refused(400, "file: send one", param="file")
        else:
            self.filename = self._part.filename or ""

    def _end(self) -> None:
        self._ended = True


class _Part:
    """A part of the form, so far as it has come; the file's data is not kept in it."""

    def __init__(self) -> None:
        self.name = ""
        self.filename: str | None = None
        self.header = self.value = self.data = b""

    def check(self) -> None:
        """Raises Refused where it takes more memory than a field needs."""
        if len(self.header) + len(self.value) + len(self.data) > MOST_FIELD_BYTES:
            raise Refused(400, f"the form: a field has more than {MOST_FIELD_BYTES:,} bytes")


def number_in(fields: dict[str, Any], name: str) -> int | None:
    """A field that is a number; None where it is not there. Raises Refused."""
    written = fields.get(name)
    if written is None:
        return None
    if not (isinstance(written, str) and written.isascii() and written.isdigit() and len(written) < 12):
        raise Refused(400, f"{name}: {str(written)[:100]!r}: write a number", param=name)
    return int(written)
