"""What can be asked for in params.yaml: typed, frozen, one module per concern.

A stage imports only the concerns that it reads, so that an edit to one of them does not
re-run the stages that never look at it.
"""
