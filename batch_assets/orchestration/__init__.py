"""The Dagster layer: assets, checks, sensors and resources, without business logic."""

import warnings

import dagster as dg

# backfill_policy and friends are marked beta in Dagster 1.13; their behaviour is pinned by our tests.
warnings.filterwarnings("ignore", category=dg.BetaWarning)
warnings.filterwarnings("ignore", category=dg.PreviewWarning)
