"""Claims on shards: leases with a fence, and what their holder may do while the fence is theirs.

A process that was taken for dead, or paused too long, finds a higher fence and can commit
nothing: every verb below compares before it sets.
"""

from typing import Any

import sqlalchemy as sa

from batch_assets.errors import ClaimLost
from batch_assets.ledger.changing import change_shards
from batch_assets.ledger.holder import Holder
from batch_assets.ledger.leases import LEASE_SECONDS, is_void
from batch_assets.ledger.rows import Claim
from batch_assets.ledger.schema import FENCES_PER_EPOCH, pipelines, shards
from batch_assets.ledger.states import State
from batch_assets.ledger.store import Store

_HELD = (State.RUNNING, State.COLLECTING)
_NOBODY: dict[str, Any] = {"holder": None, "lease_until": None}
_ERROR_CHARACTERS = 4_000


class Claims(Store):
    """The part of the Ledger that says who computes a shard."""

    def claim(self, pipeline: str, key: str, holder: Holder, run_id: str | None = None) -> Claim | None:
        """Take a READY shard, or one whose holder is void; None where it is not to be had.

        Counts an attempt. A shard that a service runs (RUNNING, held by nobody) is not to be had.
        """
        with self._database.write() as connection:
            one = sa.select(shards).where(shards.c.pipeline == pipeline, shards.c.key == key)
            row = connection.execute(one).one_or_none()
            now = self._clock()
            if row is None or row.superseded:
                return None
            held = row.state in _HELD and row.holder is not None
            if row.state != State.READY and not (held and is_void(row.holder, row.lease_until, now)):
                return None
            epoch = connection.scalar(sa.select(pipelines.c.epoch).where(pipelines.c.name == pipeline)) or 1
            # Above what was there, and in this ledger's own range: no other one writes files of that name.
            fence = max(row.fence, (epoch - 1) * FENCES_PER_EPOCH) + 1
            claim = Claim(pipeline, key, fence, row.attempt + 1, holder)
            values = {
                "state": State.RUNNING, "fence": claim.fence, "attempt": claim.attempt,
                "holder": holder.encode(), "lease_until": now + LEASE_SECONDS, "run_id": run_id,
            }  # fmt: skip
            change_shards(connection, pipeline, shards.c.key == key, values, now)
            return claim

    def begin_commit(self, claim: Claim) -> bool:
        """RUNNING → COLLECTING: the commit marker may be put. False: the claim is lost, put nothing."""
        return self._change(claim, (State.RUNNING,), {"state": State.COLLECTING})

    def finish(
        self,
        claim: Claim,
        *,
        fingerprint: str,
        embedded: int,
        rejected: int,
        failed: int,
        tokens: int | None,
    ) -> bool:
        """→ COLLECTED, the lease given back. False: the claim is lost.

        True also where this very commit is known already: told twice, or adopted from its marker.
        """
        values = {
            "state": State.COLLECTED, "fingerprint": fingerprint, "embedded": embedded,
            "rejected": rejected, "failed": failed, "tokens": tokens, "error": None, **_NOBODY,
        }  # fmt: skip
        if self._change(claim, _HELD, values):
            return True
        with self._database.read() as connection:
            known = sa.select(shards.c.key).where(
                shards.c.pipeline == claim.pipeline,
                shards.c.key == claim.shard,
                shards.c.fence == claim.fence,
                shards.c.state == State.COLLECTED,
                shards.c.fingerprint == fingerprint,
            )
            return connection.execute(known).one_or_none() is not None

    def fail(self, claim: Claim, error: str, max_attempts: int) -> State:
        """The attempt failed: READY for the next one, or EXHAUSTED after `max_attempts`; where it ended.

        A lost claim changes nothing; the state is then another's doing. ClaimLost where the
        ledger has forgotten the shard.
        """
        kept = error.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()[:_ERROR_CHARACTERS]
        to = State.READY if claim.attempt < max_attempts else State.EXHAUSTED
        if self._change(claim, _HELD, {"state": to, "error": kept, **_NOBODY}):
            return to
        with self._database.read() as connection:
            here = (shards.c.pipeline == claim.pipeline, shards.c.key == claim.shard)
            state = connection.scalar(sa.select(shards.c.state).where(*here))
        if state is None:
            raise ClaimLost(f"shard {claim.shard} of {claim.pipeline}: the ledger does not know it any more")
        return State(state)

    def release(self, claim: Claim) -> bool:
        """Give the shard back untried (READY), the attempt with it. False: the claim is lost."""
        return self._change(claim, _HELD, {"state": State.READY, "attempt": shards.c.attempt - 1, **_NOBODY})

    def _change(self, claim: Claim, frm: tuple[State, ...], values: dict[str, Any]) -> bool:
        with self._database.write() as connection:
            condition = sa.and_(_mine(claim), shards.c.state.in_(frm))
            return bool(change_shards(connection, claim.pipeline, condition, values, self._clock()))


def _mine(claim: Claim) -> sa.ColumnElement[bool]:
    return sa.and_(
        shards.c.key == claim.shard, shards.c.fence == claim.fence, shards.c.holder == claim.holder.encode()
    )
