"""Programs that SIGINT ends, whatever this process does with it.

A shell has what it starts in the background (`nohup make ui &`, a line of a script) ignore SIGINT, and
every program started from there inherits that. Whoever means to end a program by SIGINT later
starts it so.
"""

import sys
from collections.abc import Sequence

_RESTORE = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execvp(sys.argv[1], sys.argv[1:])"


def interruptible(command: Sequence[str]) -> list[str]:
    """The command line that has SIGINT end `command`; the process it starts is the program's in the end."""
    return [sys.executable, "-S", "-c", _RESTORE, *command]
