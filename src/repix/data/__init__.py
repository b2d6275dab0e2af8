"""Bytes to arrays: sources, archives, layouts, images, the prepared store, the sampler."""
