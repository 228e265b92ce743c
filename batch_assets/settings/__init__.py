"""What one pipeline is told: the fields of its `defs.yaml`, checked, and nothing else.

Plain pydantic, so that every layer below Dagster can use it. Where a pipeline is found and
how its YAML is rendered belongs to `components/`; what a field does, to the module named in
its description.
"""
