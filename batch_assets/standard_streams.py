"""Standard input, output and error of a program, whatever it was started with.

One that is closed is opened on /dev/null, since the next file that is opened would get its number: what
is printed would then go into a database. A character that an output cannot show is written out. An
output whose reader has gone takes nothing more, and that ends no work and changes no exit code. Results
that cannot be written for another reason, such as a full disk, are an error.
"""

import io
import os
import sys
from typing import TextIO

NUMBERS = (0, 1, 2)


def set_up_streams() -> None:
    """Make all three usable. Call it first of all, before anything opens a file."""
    for number in NUMBERS:
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is given, and those below are taken: it is this one.
            os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(number, True)
    sys.stdout, sys.stderr = _output(sys.stdout, 1, _Output), _output(sys.stderr, 2, _Messages)


class _Output(io.TextIOWrapper):
    """An output that shows what it can, to whoever reads it."""

    forgiven: type[OSError] = BrokenPipeError

    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except OSError as error:
            self._give_up(error)
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        """What is still written goes nowhere, and so does what was kept to be written."""
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self.fileno())
        os.close(null)
        if not isinstance(error, self.forgiven):
            raise error


class _Messages(_Output):
    """Standard error: no work ends for want of somebody to tell."""

    forgiven = OSError


def _output(stream: TextIO | None, number: int, kind: type[_Output]) -> TextIO:
    """`stream` as such an output; Python has none where it was closed."""
    if stream is None:
        return kind(open(number, "wb", closefd=False), "utf-8", "backslashreplace")
    # What somebody has put in its place, such as a test to read it, is theirs.
    if not isinstance(stream, io.TextIOWrapper) or stream not in (sys.__stdout__, sys.__stderr__):
        return stream
    encoding, by_lines = stream.encoding, stream.line_buffering
    return kind(stream.detach(), encoding, "backslashreplace", line_buffering=by_lines)
