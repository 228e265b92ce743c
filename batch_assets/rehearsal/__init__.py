"""A protocol-true AWS on 127.0.0.1: Bedrock batch inference with faults and a fast clock, the rest by moto.

Written from AWS's documentation and service models alone: nothing here imports an executor,
so that both cannot be wrong in the same way.
"""
