"""What leaves the pipeline: the champion of the model registry, and a bundle that stands on its own."""
