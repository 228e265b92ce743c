"""What the command's exit codes mean; programs outside rely on them."""

PUBLISHED = 0
NOTHING_PUBLISHED = 1  # for `verify`: not true
USAGE = 2  # usage or configuration; nothing was written
PUBLISHED_WITH_FAULTS = (
    3  # more records are bad than --max-failed allows, or parity failed under `parity: warn`
)
BUDGET_REACHED = 4  # what is left does not fit the budget; what ran is collected
INTERRUPTED = 130
