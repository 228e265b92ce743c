"""The HTTP app of `batch-assets serve`: orders to start pipelines, taken down in the ledger and carried out.

`application` answers requests; before it stand `connections`, which end those that make no progress, and
`gate`, which asks for the token. `starter` carries the orders out, each by the command itself as a child
process (`child`).
"""
