"""The queue worker: messages with requests for a model go to a server in between its other traffic, none is lost.

Not here: what a call is and what its answer means (`gateway`), the command (`cli/dispatch.py`).
"""
