"""The `batch-assets` command: one file per verb. What a verb does is done by the layers below."""

from batch_assets.cli.app import main

__all__ = ["main"]
