"""The worker container's command: `python -m batch_assets.worker --manifest URI`.

Which shard it is, in an array, AWS Batch says in AWS_BATCH_JOB_ARRAY_INDEX. Exit codes: 0 the
shard is committed, 1 it is not and may be tried again, 2 it never will be by this container.
"""

import argparse
import logging
import os
import sys

from batch_assets.errors import BatchAssetsError, ConfigurationError, ModelError
from batch_assets.module_loading import collector_at_rest
from batch_assets.plain_text import PlainFormatter, show_tracebacks_plainly
from batch_assets.standard_streams import set_up_streams

INDEX, JOB = "AWS_BATCH_JOB_ARRAY_INDEX", "AWS_BATCH_JOB_ID"
DONE, FAILED, NEVER = 0, 1, 2


def main(arguments: list[str] | None = None) -> int:
    """Carry out one assignment of a manifest; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m batch_assets.worker", description="Embeds one shard of a pipeline and commits it."
    )
    parser.add_argument(
        "--manifest", required=True, metavar="URI", help="What is to be done, as it was submitted."
    )
    uri = parser.parse_args(arguments).manifest
    handler = logging.StreamHandler()
    handler.setFormatter(PlainFormatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    with collector_at_rest():
        from batch_assets.worker.assignment import read_manifest
        from batch_assets.worker.container import carry_out

    try:
        manifest = read_manifest(uri)
        place = _place(len(manifest.assignments))
        assignment = manifest.assignments[place]
        marker = carry_out(manifest, assignment, os.environ.get(JOB) or f"{manifest.name}:{place}")
    except (ConfigurationError, ModelError) as error:
        sys.stderr.write(f"error: {error}\n")
        return NEVER
    except BatchAssetsError as error:
        sys.stderr.write(f"error: {error}\n")
        return FAILED
    counts = " ".join(
        f"{name}={marker.counts[name]}" for name in ("planned", "embedded", "rejected", "failed")
    )
    sys.stdout.write(f"accounting: {counts}\n")
    return DONE


def _place(shards: int) -> int:
    """The place of this worker's shard in the manifest. Raises ConfigurationError."""
    written = os.environ.get(INDEX)
    if written is None:
        if shards != 1:
            raise ConfigurationError(
                f"{INDEX} is not set, and the manifest holds {shards} shards: which one?"
            )
        return 0
    if not written.isdigit() or int(written) >= shards:
        raise ConfigurationError(f"{INDEX}={written}: the manifest holds {shards} shards, counted from 0")
    return int(written)


if __name__ == "__main__":
    set_up_streams()
    show_tracebacks_plainly()
    sys.exit(main())
