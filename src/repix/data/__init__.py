"""Bytes to arrays: sources, archives, layouts, images, the store, the sampler, and drawn samples."""
