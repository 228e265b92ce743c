"""Codes of records that have no answer, which more than one folder gives or asks for."""

SERVICE = "service_"
"""What a service says of a single record has its own code for that behind this."""

MISSING = "missing_result"
EXPIRED = "expired"
NOT_PROCESSED = "not_processed"
TOO_LONG = "too_long"
UNEXPECTED = "unexpected_output"

JOB_EXPIRED = "job_expired"
JOB_FAILED = "job_failed"
"""Nothing is told of the record but that its job failed."""
JOB_LOST = "job_lost"
JOB_STOPPED = "job_stopped"
