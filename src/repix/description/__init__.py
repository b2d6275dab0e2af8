"""Describe a model before it trains: parameters, receptive fields and a diagram of its networks.

Nothing here is imported by a stage, so that a change of a page or a picture re-runs nothing.
"""
