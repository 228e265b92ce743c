"""What the rehearsal's AWS has counted, as a table: the other side of the accounting."""

from collections.abc import Iterator

from rich.table import Table

from batch_assets.cli.console import out
from batch_assets.rehearsal.books import Books
from batch_assets.settings.aws_batch import AwsBatchExecutorSettings
from batch_assets.settings.executors import ServiceSettings
from batch_assets.settings.sagemaker import SageMakerExecutorSettings


def tell_books(books: Books, executor: ServiceSettings) -> None:
    """Print what the executor's service has done, and how often it was called."""
    if isinstance(executor, AwsBatchExecutorSettings):
        rows = _of_batch(books)
    elif isinstance(executor, SageMakerExecutorSettings):
        rows = _of_transforms(books)
    else:
        rows = _of_bedrock(books)
    table = Table(title="The service's own books", show_header=False, box=None, title_justify="left")
    for name, value in rows:
        table.add_row(name, value)
    for operation, outcomes in sorted(books.as_dict()["calls"].items()):
        table.add_row(operation, ", ".join(f"{count:,} {outcome}" for outcome, count in outcomes.items()))
    out.print()
    out.print(table)


def _of_bedrock(books: Books) -> Iterator[tuple[str, str]]:
    found = books.as_dict()
    records = found["records"]
    yield "jobs", f"{len(found['jobs']):,}"
    yield "records paid for", f"{records['paid']:,}, {records['distinct']:,} different ones"
    yield "spoiled by the service", f"{records['spoiled']:,} (paid for, and no result came of it)"
    yield "paid for twice by us", f"{records['paid_again']:,}"
    yield "tokens", f"{found['input_tokens']:,} in, {found['output_tokens']:,} out"
    yield "dollars", f"{found['usd']:.6f}"


def _of_transforms(books: Books) -> Iterator[tuple[str, str]]:
    records, jobs = books.as_dict()["records"], list(books.transforms.values())
    yield "jobs", f"{len(jobs):,}, {sum(job.seconds for job in jobs) / 3600:,.2f} hours of instances"
    yield (
        "objects",
        f"{sum(job.succeeded for job in jobs):,} succeeded, {sum(job.failed for job in jobs):,} failed",
    )
    yield "records computed", f"{records['processed']:,}, {records['distinct']:,} different ones"
    yield "spoiled by the service", f"{records['spoiled']:,} (computed, and no result came of it)"
    yield "computed twice by us", f"{records['paid_again']:,}"


def _of_batch(books: Books) -> Iterator[tuple[str, str]]:
    runs = list(books.runs.values())
    yield "shards' processes", f"{sum(run.began for run in runs):,}"
    yield (
        "attempts",
        f"{sum(run.succeeded for run in runs):,} succeeded, {sum(run.failed for run in runs):,} failed",
    )
    yield "hours of containers", f"{sum(run.seconds for run in runs) / 3600:,.2f}"
    yield "ran well more than once", f"{sum(run.succeeded > 1 for run in runs):,}"
