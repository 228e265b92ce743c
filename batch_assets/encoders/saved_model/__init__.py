"""What a model's saved directory is, by its own files: kind, weights, prompts, dimensions, pooling."""
