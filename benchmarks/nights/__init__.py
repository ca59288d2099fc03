"""Benches of nights in a row: what they go on from, and what they learn between each other."""
