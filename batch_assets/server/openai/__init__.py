"""OpenAI's HTTP API in front of every pipeline that takes requests: files, batches, models."""
