"""Counting ids: exact as long as they fit, in bounded memory beyond."""

import numpy as np
import pytest

from batch_assets.sources import record_ids
from batch_assets.sources.base import Fault
from batch_assets.sources.record_ids import IdCount, IdCounter, id_hashes


def count(names: list[str | Fault | None], *, exact: bool = False, at_once: int = 7) -> IdCounter:
    counter = IdCounter(exact=exact)
    for start in range(0, len(names), at_once):
        counter.add(id_hashes(names[start : start + at_once]))
    return counter


@pytest.mark.parametrize("exact", [True, False])
def test_ids_that_fit_are_counted_exactly(exact: bool) -> None:
    names = ["a", "b", None, "a", "", Fault("no_text", ""), "a", "", Fault("no_text", ""), "0", None]
    counter = count(names, exact=exact)
    assert counter.count() == IdCount(duplicates=2, records=5, missing=2)
    assert counter.duplicates(10).tolist() == sorted(id_hashes(["a", ""]))
    assert len(counter.duplicates(1)) == 1
    assert IdCounter().count() == IdCount()


def test_beyond_memory_it_stays_exact_where_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_ids, "MOST_IN_MEMORY", 300)
    monkeypatch.setattr(record_ids, "_PENDING", 100)
    names = [f"n{n}" for n in range(2000)] + [None] * 5 + [f"n{n}" for n in range(0, 2000, 10)] + ["n0"] * 700
    counter = count([*names], exact=True, at_once=37)
    assert counter.count() == IdCount(duplicates=200, records=1100, missing=5)
    assert counter.duplicates(1000).tolist() == sorted(id_hashes(f"n{n}" for n in range(0, 2000, 10)))
    counter.add(id_hashes(["n1"]))  # and may go on
    assert counter.count().duplicates == 201


def test_beyond_memory_it_is_an_estimate_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_ids, "MOST_IN_MEMORY", 2000)
    monkeypatch.setattr(record_ids, "_PENDING", 500)
    hashes = np.random.default_rng(0).integers(2, 2**63, 20_000)
    counter = IdCounter()
    for part in np.split(np.concatenate([hashes, hashes[:5000], [0] * 40]), 16):
        counter.add(part)
    found = counter.count()
    assert not found.exact and found.missing == 40
    assert 4000 < found.duplicates < 6000  # one of 16 is kept: off by some √(16 · 5000)
    assert found.records == 2 * found.duplicates
    assert found.describe()[0].startswith(f"about {found.duplicates:,} ids")
