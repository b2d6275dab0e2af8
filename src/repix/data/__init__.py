"""Bytes to arrays: an archive is fetched, unpacked, laid out, decoded and stored.

The modules in the order of the route: ``sources`` (a URL becomes an archive on disk),
``archives`` (an archive becomes a tree of files), ``layouts``, ``images``, ``preprocess`` (arrays in shards),
``prepared`` (which are read again), ``sampler``; ``synthetic`` makes the sample set that needs no network.
"""
