"""Jobs that end one by one while their submission goes on with others: the children of an array.

How a submission as a whole is followed is in `submissions.py`.
"""

from collections.abc import Mapping

import sqlalchemy as sa

from batch_assets.ledger.choosing import read_jobs
from batch_assets.ledger.schema import jobs
from batch_assets.ledger.states import LIVE_SUBMISSION, State
from batch_assets.ledger.store import Store, batches, repeatable
from batch_assets.ledger.submissions import ended_job, follow_submission, read_submission


class Children(Store):
    """The part of the Ledger that follows single jobs of a submission."""

    @repeatable
    def observe_jobs(self, token: str, ended: Mapping[tuple[str, int], State]) -> list[str]:
        """Note which jobs (shard, fence) of a submission have SUCCEEDED or FAILED while others go on.

        Once for each: said twice, or of a submission that has ended, it changes nothing. The keys
        of the shards that moved with it.
        """
        moved: list[str] = []
        with self._database.write() as connection:
            now = self._clock()
            row = read_submission(connection, token)
            if row is None or row.state not in LIVE_SUBMISSION:
                return []
            open_jobs = read_jobs(connection, sa.and_(jobs.c.submission == token, jobs.c.state.is_(None)))
            for state in sorted(set(ended.values())):
                some = [job for job in open_jobs if ended.get((job.shard, job.fence)) is state]
                for keys in batches([job.shard for job in some]):
                    named = sa.and_(jobs.c.submission == token, jobs.c.shard.in_(keys))
                    connection.execute(sa.update(jobs).where(named).values(state=state))
                moved += follow_submission(
                    connection, row, some, {"state": state, "collect_after": now}, now, ended_job(state)
                )
            return moved

    @repeatable
    def ended_jobs(self, token: str) -> int:
        """How many of a submission's jobs are known to have ended before it."""
        with self._database.read() as connection:
            named = sa.and_(jobs.c.submission == token, jobs.c.state.is_not(None))
            return connection.scalar(sa.select(sa.func.count()).select_from(jobs).where(named)) or 0
