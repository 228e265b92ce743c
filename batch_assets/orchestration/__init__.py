"""The Dagster layer: assets, checks, sensors and resources, without business logic."""
