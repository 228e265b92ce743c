"""The executor gateway: records sent to a model server that answers like OpenAI's API."""
