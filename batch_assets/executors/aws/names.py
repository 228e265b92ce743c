"""What a pipeline's jobs are called at a service; nothing is asked of it.

Where its files lie is in `staging.py`.
"""

import hashlib
from collections.abc import Sequence
from functools import cached_property

from batch_assets.executors.jobs import JobKey
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.storage import open_storage


class Named:
    """The names of one pipeline's jobs at a service; nothing is asked of it.

    A service remembers names and tokens longer than an output root lives: `deployment`, random
    for each root, keeps a root's jobs apart from those of an earlier one at the same place.
    """

    settings: PipelineSettings
    deployment: str | None = None

    @cached_property
    def root_uri(self) -> str:
        return open_storage(self.settings.output.root).uri

    @property
    def root_digits(self) -> str:
        """Six hex digits of the output root's place."""
        return _digits(self.root_uri)

    def _prefix(self, digits: str) -> str:
        return f"{self.settings.name.replace('_', '-')}-{digits}-"

    @property
    def name_prefixes(self) -> list[str]:
        """How the names of this pipeline's jobs begin: of new ones, then of those from before ids were in them."""
        earlier = self._prefix(self.root_digits)
        if self.deployment is None:
            return [earlier]
        return [self._prefix(_digits(f"{self.root_uri}\n{self.deployment}")), earlier]

    def submission_name(self, jobs: Sequence[JobKey], prefix: str | None = None) -> tuple[str, str]:
        """(token, name); names have at most 63 of [a-zA-Z0-9-], tokens are hex digits.

        The digests are in both: what is met again means the same requests.
        """
        prefix = self.name_prefixes[0] if prefix is None else prefix
        told = sorted(f"{job.shard}-{job.fence}-{job.digest}" for job in jobs)
        token = hashlib.sha256(
            "\n".join([self.deployment or "", prefix, self.root_uri, *told]).encode()
        ).hexdigest()
        if len(jobs) > 1:
            return token, f"{prefix}pool-{token[:12]}"
        return token, f"{prefix}{jobs[0].shard}-{jobs[0].fence}-{jobs[0].digest[:6]}"


def _digits(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:6]
