"""What lets messages pass to the server, or holds them back, one kind a file; `base.py` has the protocol."""
