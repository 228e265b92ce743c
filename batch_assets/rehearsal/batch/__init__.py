"""AWS Batch: jobs and arrays of jobs, whose containers run as processes of this machine."""
