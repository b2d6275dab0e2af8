"""What the benchmarks share: trainings laid out and scored, tables, and the reference code in our own words."""
