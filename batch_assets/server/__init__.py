"""The HTTP app of `batch-assets serve`: orders to start pipelines, taken down in the ledger and carried out.

`application` answers requests, `gate` stands before it, `starter` carries the orders out, each by
the command itself as a child process (`child`).
"""
