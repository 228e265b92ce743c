"""What `status NAME SHARD` prints of a story, on a terminal of 80 columns."""

from pathlib import Path

import pytest

from batch_assets.cli.story import show_story
from batch_assets.errors import ConfigurationError
from batch_assets.ledger.ledger import Ledger
from batch_assets.ledger.rows import Adoption
from batch_assets.ledger.story import KEPT_ENTRIES
from batch_assets.retry_policy import Cause
from batch_assets_tests.ledger.helpers import DONE, KEYS, ME, claimed, make_ready, planned

LOST = "the worker on node 10.0.0.17 was lost with its machine: the raylet has not answered for 30 s"


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    monkeypatch.setenv("COLUMNS", "80")
    return planned(Ledger.open(f"sqlite:///{tmp_path}/ledger.db"))


def lines_of(ledger: Ledger, capsys: pytest.CaptureFixture[str], key: str = KEYS[0]) -> list[str]:
    show_story(ledger, "texts", key, json=False)
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert max(len(line) for line in lines) <= 80
    return lines


def without_time(line: str) -> str:
    return line[19:].strip()


def test_a_lost_machine_says_that_it_cost_no_attempt(
    ledger: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger.fail(claimed(ledger), LOST, 3, Cause.MACHINE_LOST)
    claim = ledger.claim("texts", KEYS[0], ME)
    assert claim is not None
    ledger.finish(claim, **DONE)
    lines = lines_of(ledger, capsys)
    assert lines[0] == f"shard {KEYS[0]} of texts: collected, 100 records"
    assert "→ lost machine 1 of 5 that cost no attempt" in " ".join(map(without_time, lines))
    assert without_time(lines[-1]) == "1  collected: 97 embedded, 2 rejected, 1 failed"


def test_what_was_given_up_and_retried_says_who_ordered_it(
    ledger: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger.fail(claimed(ledger), "CUDA error", 1)
    ledger.retry("texts")
    assert [without_time(line) for line in lines_of(ledger, capsys)[2:]] == [
        "1  began",
        "1  failed: CUDA error",
        "→ attempt 1 of 1; given up, attempts are spent",
        "retried: ordered by a person",
        "→ it has all its attempts again",
    ]


def test_a_story_that_does_not_begin_at_the_beginning_says_so(
    ledger: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lines_of(ledger, capsys)[-1] == "nothing has happened to it since this ledger knows it"
    ledger.adopt_all("texts", [Adoption(KEYS[0], 3, "f1", 97, 2, 1, 1_000)])
    assert lines_of(ledger, capsys)[-1].startswith("this ledger was rebuilt from the output root")
    make_ready(ledger, [KEYS[1]])
    for turn in range(KEPT_ENTRIES):
        claim = ledger.claim("texts", KEYS[1], ME)
        assert claim is not None
        ledger.release(claim, f"turn {turn}")
    assert lines_of(ledger, capsys, KEYS[1])[-1] == "50 earlier entries are not kept"


def test_a_shard_that_is_not_planned_is_refused_by_name(ledger: Ledger) -> None:
    with pytest.raises(ConfigurationError, match="g0009-00000: no such shard in pipeline texts"):
        show_story(ledger, "texts", "g0009-00000", json=False)
