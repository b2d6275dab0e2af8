"""A trained translator leaves the pipeline: files that people use, provably the same function."""
