"""OpenAI's files and batches: what the database has of them, how their lines become requests, and how answers read.

The HTTP doors are in `server/openai/`; taking a batch and writing its files is `control/batches/`'s.
"""
