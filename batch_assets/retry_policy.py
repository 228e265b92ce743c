"""How long what does not answer is waited for: the numbers. `patience.py` waits by them.

Two kinds of failure are told apart by whoever meets them. What is *away* (no connection, no answer, a server's own
error, "slow down", credentials that have expired) may be there again in a while: it is waited for, with a word now and
then, and given up with a LastingStorageError. What is *wrong* (no access, no such bucket, a host that nobody knows at
the first touch) is said at once. Attempts of shards and of records are settings of their executor.
"""

AWAY_SECONDS = 300.0
"""So long what has answered before is waited for."""
FIRST_ANSWER_SECONDS = 30.0
"""So long what has never answered this process: its address may be wrong, and somebody may sit at the terminal."""
TICK_SECONDS = 2.0
"""So long in a sensor's tick or a turn of the control loop, which comes again by itself."""
ANSWER_SECONDS = 30.0
"""No try waits longer for one answer: what a try took beyond that was work."""
SILENT_SECONDS = 5.0
"""A wait that is over by then is not worth a word."""
LOOK_SECONDS = 0.25
"""How often a pause that can be ended looks whether it is."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.25, 15.0
SPEAK_SECONDS = 30.0
