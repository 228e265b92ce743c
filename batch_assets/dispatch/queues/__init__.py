"""The kinds of queues, all by the protocol in `base.py`."""
