"""Nights in a row that serve their own lists in the simulated shop, and learn from them."""
