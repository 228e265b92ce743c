"""How many instances transform jobs may have at once, as Service Quotas tells it for an account and a region.

Every instance type has a quota of its own, often 0 in a new account.
"""

from typing import Any

from batch_assets.executors.aws.errors import error_message
from batch_assets.plain_text import plain_logger

DEFAULT_JOBS = 20
"""At once, where the quota cannot be read: the service itself says when there are too many."""

PAGE = 100  # the most that Service Quotas gives at once
logger = plain_logger(__name__)


def quota_name(instance_type: str) -> str:
    """The quota's name, in Service Quotas and in refusals."""
    return f"{instance_type} for transform job usage"


def read_instances(client: Any, instance_type: str) -> int | None:
    """The quota of instances of that type; None where it cannot be read."""
    name = quota_name(instance_type)
    try:
        # Some thousand quotas, by pages: there is no way to ask for one by its name.
        pages = client.get_paginator("list_service_quotas")
        for page in pages.paginate(ServiceCode="sagemaker", PaginationConfig={"PageSize": PAGE}):
            for quota in page.get("Quotas", ()):
                if quota.get("QuotaName") == name:
                    return int(quota["Value"])
    except Exception as error:  # no permission, no such service here
        logger.info("quota %r cannot be read: %s; taken as %d jobs", name, error_message(error), DEFAULT_JOBS)
        return None
    logger.info("quota %r is not told by Service Quotas; taken as %d jobs", name, DEFAULT_JOBS)
    return None
