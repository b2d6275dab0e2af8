"""Proof that results follow from their inputs: wiring, lock, rebuild, comparison.

``wire`` reads dvc.yaml and holds it against the code; ``lock`` reads dvc.lock; ``worktree``
rebuilds a revision from scratch; ``compare`` says at which level two results are the same.
"""
