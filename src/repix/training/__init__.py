"""The training loop, the step of each backend, checkpoints. Tells an observer what happens; knows no tracker."""
