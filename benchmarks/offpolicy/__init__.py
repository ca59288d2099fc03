"""Off-policy estimates against what is known: the simulated shop's truth, and the Open Bandit data."""
