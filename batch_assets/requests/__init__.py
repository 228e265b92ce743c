"""Single requests and queued messages: the database that holds them, beside the ledger and apart from it."""
