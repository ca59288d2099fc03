"""True value of lists: what policies' pages earn by the simulated shop's own probabilities."""
