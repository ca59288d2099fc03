"""Models of one published set that the product does not serve."""
