"""The project's own asset: articles as JSON lines, which the pipeline `article_vectors` embeds."""

import json
from pathlib import Path

import dagster as dg

PROJECT = Path(__file__).parents[3]
INBOX = PROJECT / "inbox"
ARTICLES = PROJECT / "data" / "articles"


@dg.asset(required_resource_keys={"ledger"})
def articles(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    """One file for each text file of the inbox, one record for each line in it."""
    ARTICLES.mkdir(parents=True, exist_ok=True)
    count = 0
    for file in sorted(INBOX.glob("*.txt")):
        records = [
            {"id": f"{file.stem}-{number}", "topic": file.stem, "text": line}
            for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1)
        ]
        count += len(records)
        written = "".join(json.dumps(record) + "\n" for record in records)
        target = ARTICLES / f"{file.stem}.jsonl"
        # A file that is left as it is is not embedded again.
        if not target.exists() or target.read_text(encoding="utf-8") != written:
            target.write_text(written, encoding="utf-8")
    context.log.info(f"{count} articles, entered in {context.resources.ledger}")
    return dg.MaterializeResult(metadata={"articles": count})
