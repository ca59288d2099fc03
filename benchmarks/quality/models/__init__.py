"""Models of published sets: pairs without time, bags of a user's items, how they start and are trained."""
