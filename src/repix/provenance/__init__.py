"""Proof that results follow from their inputs: stages, code, lineage, lock, rebuild, comparison.

``pipeline`` reads dvc.yaml, ``code`` says what a stage's code computes, and ``lineage`` records what a result followed
from; ``lock`` reads dvc.lock; ``checkout`` lays out a revision, ``verify`` rebuilds it from scratch; ``compare`` says
at which level two results are the same, and ``revisions`` finds those that were recorded.
"""
