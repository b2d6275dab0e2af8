"""Proofs of what the project promises, each a command at the repository's root: ``python -m checks.gate``."""
