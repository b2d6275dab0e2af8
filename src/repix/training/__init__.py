"""The loop, the step, the checkpoint. Tells an observer what happens; knows no tracker."""
