"""What transform jobs cost: the time that they have their instances, by the price that the settings name."""

from batch_assets.executors.service_jobs import ServiceJob
from batch_assets.settings.sagemaker import SageMakerExecutorSettings

HOUR = 3600.0


def most_usd(options: SageMakerExecutorSettings) -> float | None:
    """The most that a job can cost; None where its price or its longest time is not known."""
    if options.usd_per_hour is None or options.max_job_hours is None:
        return None
    return options.max_job_hours * options.instance_count * options.usd_per_hour


def cost_of(options: SageMakerExecutorSettings, job: ServiceJob | None, bound_usd: float) -> float | None:
    """USD for the time that a job had its instances, failed or not; None where no price is known.

    Of a job that the service does not know any more, or tells no end of, only its bound is known.
    """
    if options.usd_per_hour is None:
        return None
    if job is None or job.active:
        return bound_usd
    if job.began_at is None or job.ended_at is None:
        return 0.0
    hours = max(job.ended_at - job.began_at, 0.0) / HOUR
    return hours * options.instance_count * options.usd_per_hour
