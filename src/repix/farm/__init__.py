"""Many trainings at once: cells of the grid on several processes or machines, before `dvc repro` finds them done.

The driver makes what all cells read, hands each cell to an engine, and writes what comes back into dvc.lock.
A worker knows a git repository and a place for outs (a DVC remote, or the cache of a repository on the same machine).
"""
