"""Simple systems on the same rows and lists as a bundle."""
