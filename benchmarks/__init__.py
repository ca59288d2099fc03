"""Measure the product: public sets, speed, simple systems. Imports every room; no room imports it."""
