"""Publish what the pipeline made: as champion of the model registry, or as a bundle that needs nothing of repix."""
