"""Simple systems that sets share: biases, tuned trees, list rankers."""
