"""A protocol-true AWS on 127.0.0.1, with faults and a fast clock.

Bedrock batch inference, SageMaker's transform jobs, AWS Batch, and their quotas; the rest is moto's.

Written from AWS's documentation and service models alone: nothing here imports an executor,
so that both cannot be wrong in the same way.
"""
