"""Jobs of others in the same account and region: they take slots, stand in lists, and send events."""

from collections import Counter

from batch_assets.rehearsal.account import ACCOUNT
from batch_assets.rehearsal.job import Job
from batch_assets.rehearsal.jobs import Jobs


class Tenants:
    """Keeps as many foreign jobs alive in each region as the scenario says, from the region's first call on."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self._seen: set[str] = set()
        self._made: Counter[tuple[str, str]] = Counter()

    def settle(self, region: str) -> None:
        """Begin the region's foreign jobs, unless that is done."""
        with self._jobs.lock:
            if region in self._seen:
                return
            self._seen.add(region)
            for model, count in self._jobs.scenario.tenants.jobs.items():
                for place in range(count):
                    self._begin(region, model, place)

    def ended(self, job: Job) -> None:
        """Begin the next job in the place of one that has ended, after a pause."""
        _, place, _ = job.name.rsplit("-", 2)
        chance = self._jobs.scenario.draw("pause", job.name)
        pause = chance.uniform(*self._jobs.scenario.tenants.pause)
        self._jobs.timeline.after(pause, lambda: self._begin(job.region, job.request["modelId"], int(place)))

    def _begin(self, region: str, model: str, place: int) -> None:
        with self._jobs.lock:
            if place >= self._jobs.scenario.tenants.jobs.get(model, 0):
                return
            if self._jobs.is_full(region, model):
                self._jobs.timeline.after(60, lambda: self._begin(region, model, place))
                return
            self._made[region, model] += 1
            # Named by the model too, since names are unique in the account.
            stem = model.split(":", maxsplit=1)[0].replace("_", "-")[:40]
            name = f"{stem}-{place}-{self._made[region, model]}"
            job = self._jobs.accept(
                region,
                {
                    "jobName": name,
                    "modelId": model,
                    "roleArn": f"arn:aws:iam::{ACCOUNT}:role/analytics-batch",
                    "inputDataConfig": {"s3InputDataConfig": {"s3Uri": f"s3://analytics/in/{name}/"}},
                    "outputDataConfig": {"s3OutputDataConfig": {"s3Uri": "s3://analytics/out/"}},
                },
                foreign=True,
            )
            job.counts.total = 5000
