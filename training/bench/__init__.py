"""`recsys bench train`, `bench balancing` and `bench trunks`: what training costs, each in one run."""
