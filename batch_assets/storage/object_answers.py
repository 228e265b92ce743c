"""Reads the HTTP status, the error code and the message of an object store out of the text of obstore's errors.

`object_errors.py` says what they mean and what to do about them.
"""

import html
import re
from dataclasses import dataclass

LONGEST = 300
_DEBUG = "\n\nDebug source:"
_METHOD = re.compile(r"Error performing ([A-Z]+) ")
_STATUS = re.compile(r"returned non-2xx status code: (\d{3})([^:]*): ?(.*)", re.DOTALL)
_FAULT = re.compile(r"returned error response: (.*)", re.DOTALL)  # a 200 whose body says that it failed
_DELETE = re.compile(r"request failed for key .*: (.*) \(code: ([^)]*)\)", re.DOTALL)
_REQUEST = re.compile(r"Error performing [A-Z]+ .*? - (.*)", re.DOTALL)
_STORE = re.compile(r"Generic \w+ error: ")
_EXHAUSTED = re.compile(r" in ([\d.]+)s, after \d+ retries, max_retries: \d+, retry_timeout: ([\d.]+)s ")
_TAG = re.compile(r"<[^<>]*>")


@dataclass(frozen=True, slots=True)
class Answer:
    """An object store's answer. Without one `status` is 0, `code` is empty, and `message` is what went wrong instead.

    `method` is the HTTP method of the request, or empty where obstore does not tell it.
    """

    status: int
    code: str
    message: str
    method: str

    def __str__(self) -> str:
        """Return the code and the message as one line."""
        return ": ".join(part for part in (self.code, self.message) if part)


def parse_answer(error: Exception) -> Answer:
    """Return the store's answer that an error of obstore's quotes."""
    text = str(error).split(_DEBUG, 1)[0].strip()
    method = found[1] if (found := _METHOD.search(text)) else ""
    if found := _DELETE.search(text):
        return _answer(int(found[2]) if found[2].isdigit() else 200, found[2], found[1], method)
    if found := _STATUS.search(text):
        status, phrase, body = int(found[1]), found[2].strip(), found[3]
        return _of_body(status, f"{status} {phrase}".strip(), body, method)
    if found := _FAULT.search(text):
        return _of_body(200, "", found[1], method)
    found = _REQUEST.search(text)
    return _answer(0, "", found[1] if found else _STORE.sub("", text), method)


def seconds_tried(error: Exception) -> float:
    """Return how many seconds obstore has repeated the request, if until its own time limit; else 0."""
    found = _EXHAUSTED.search(str(error).split(_DEBUG, 1)[0])
    seconds, limit = (float(found[1]), float(found[2])) if found else (0.0, 0.0)
    return seconds if seconds >= limit else 0.0


def _of_body(status: int, status_line: str, body: str, method: str) -> Answer:
    code = _element(body, "Code")
    if code:
        told = (_element(body, name) for name in ("Message", "Details"))
        return _answer(status, code, " ".join(filter(None, told)), method)
    # No error of a store's own making: a proxy's page, JSON, or nothing at all, as after HEAD.
    return _answer(status, status_line, html.unescape(_TAG.sub(" ", body)), method)


def _element(body: str, name: str) -> str:
    found = re.search(rf"<{name}>(.*?)</{name}>", body, re.DOTALL)
    return html.unescape(found[1]).strip() if found else ""


def _answer(status: int, code: str, message: str, method: str) -> Answer:
    line = " ".join(message.split()).removesuffix(".")
    return Answer(status, code, line if len(line) <= LONGEST else line[: LONGEST - 1] + "…", method)
