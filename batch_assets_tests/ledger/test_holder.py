"""Who is dead is told from this host only, and never of somebody who may live."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from batch_assets.ledger import holder as module
from batch_assets.ledger.holder import Holder
from batch_assets_tests.ledger.helpers import ELSEWHERE, ME, dead_process
from batch_assets_tests.waiting import wait_until

CHILD = """
from batch_assets.ledger.holder import Holder
print(Holder.current().encode(), flush=True)
input()
"""


def test_a_holder_survives_its_text_and_reads_well() -> None:
    assert Holder.decode(ME.encode()) == ME
    assert str(replace(ME, host="gpu-7", pid=123)) == "pid 123 on gpu-7"
    with pytest.raises(ValueError, match="'nobody' is no holder"):
        Holder.decode("nobody")


def test_a_child_lives_until_it_is_killed_also_unreaped() -> None:
    child = subprocess.Popen([sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    theirs = Holder.decode(child.stdout.readline().decode().strip())
    assert theirs.pid == child.pid
    assert theirs != ME
    assert not theirs.is_dead_here()
    child.send_signal(signal.SIGKILL)
    # Not waited for: a zombie still has its pid, but computes nothing.
    wait_until(theirs.is_dead_here)
    child.communicate()
    assert theirs.is_dead_here()


@pytest.mark.parametrize(
    ("holder", "dead"),
    [
        (ME, False),
        (dead_process(), True),
        (replace(ME, started="1"), True),  # the pid was given away again
        (replace(ME, started=""), False),  # its start could not be told: nothing is said
        # An older boot of this machine, or another machine of the same name: nobody can tell.
        (replace(ME, boot_id="another-boot"), False),
        (replace(ME, boot_id="another-boot", pid=2**22 - 1), False),
        (
            replace(ME, boot_id=ME.boot_id.partition("+")[0] + "+4026539999", pid=2**22 - 1),
            False,
        ),  # a container
        (ELSEWHERE, False),
        (replace(ME, pid=1, started=""), False),  # another user's, perhaps: it lives
    ],
)
def test_is_dead_here(holder: Holder, dead: bool) -> None:
    assert holder.is_dead_here() is dead


def test_without_proc_ps_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ps = tmp_path / "ps"
    ps.write_text("#!/bin/sh\necho 'S+   Mon Nov 20 09:16:00 2023'\n")
    ps.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: (_ for _ in ()).throw(FileNotFoundError()))
    assert module._started(os.getpid()) == "Mon Nov 20 09:16:00 2023"
    ps.write_text("#!/bin/sh\necho 'Z    Mon Nov 20 09:16:00 2023'\n")
    assert module._started(os.getpid()) is None
