"""What checks and tests both stand on: tiny cells, the route in a copy of the repository, plain references."""
