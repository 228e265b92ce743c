"""A source of single requests: when they are sealed into a window, how many may be open, how long they are kept."""

import datetime

from pydantic import Field

from batch_assets.settings.base import Bytes, Settings
from batch_assets.settings.retention import Age

MOST_SEALED = 100_000
MOST_BODY_BYTES = 16 * 2**20


class TenantSettings(Settings):
    """How many requests one tenant may have, where that is limited."""

    max_open: int | None = Field(default=None, ge=0, description="Requests that wait for their result.")
    max_per_day: int | None = Field(default=None, ge=0, description="Requests accepted since midnight UTC.")


class RequestsSettings(Settings):
    """Records that come one by one over HTTP (`batch-assets serve`), gathered into windows."""

    seal_records: int = Field(
        default=1000, ge=1, le=MOST_SEALED, description="A window is sealed once it has so many requests."
    )
    seal_seconds: float = Field(
        default=60, ge=0, le=86_400, description="And at the latest so long after its first request came."
    )
    max_body_bytes: Bytes = Field(
        default=10**6, ge=1, le=MOST_BODY_BYTES, description="A request with a longer body is refused (413)."
    )
    max_open: int = Field(
        default=1_000_000,
        ge=1,
        description="Requests that may wait for their result; one more is refused (429).",
    )
    tenant_max_open: int | None = Field(
        default=None,
        ge=0,
        description="Of these, how many one tenant may have; by default as many as there may be.",
    )
    tenant_max_per_day: int | None = Field(
        default=None,
        ge=0,
        description="Requests that a tenant may have accepted from one midnight UTC to the next; one more is refused "
        "(429).",
    )
    tenants: dict[str, TenantSettings] = Field(
        default_factory=dict,
        description="Tenants with other limits, by name: `{acme: {max_open: 50000, max_per_day: 1000000}}`.",
    )
    answer_within: Age = Field(
        default=datetime.timedelta(hours=24),
        description="A check in Dagster fails while a request has been open for longer.",
    )
    keep: Age = Field(
        default=datetime.timedelta(days=30),
        ge=datetime.timedelta(hours=1),
        description="How long a request is kept after its end, with its window, its result and its Idempotency-Key; "
        "then they are removed.",
    )

    def limits_of(self, tenant: str) -> TenantSettings:
        """The limits of a tenant: its own, where there are none those of each."""
        own = self.tenants.get(tenant, TenantSettings())
        return TenantSettings(
            max_open=self.tenant_max_open if own.max_open is None else own.max_open,
            max_per_day=self.tenant_max_per_day if own.max_per_day is None else own.max_per_day,
        )
