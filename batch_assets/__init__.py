"""Batch Assets: verified embeddings for very many records, as Dagster assets."""
