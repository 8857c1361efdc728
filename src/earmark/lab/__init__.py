"""The toy world: its images, its models, and their training."""
