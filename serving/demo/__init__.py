"""`recsys demo`: the whole loop on the simulated shop."""
