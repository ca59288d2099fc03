"""`recsys demo`: the whole loop on the simulated shop, and what a user sees of it."""
