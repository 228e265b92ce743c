"""SageMaker's batch transform jobs: what they read, send through a container, and write."""
