"""Many cells at once, to learn about the metrics: the noise between seeds, a search, trivial predictors."""
