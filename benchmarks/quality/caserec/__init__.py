"""Retailrocket and Book-Crossing, as cleaned by CaseRec."""
