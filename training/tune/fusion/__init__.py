"""Weights of the fusion formula, searched offline."""
