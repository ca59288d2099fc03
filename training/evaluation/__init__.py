"""A frozen bundle on later days: rows, ranked lists and their figures, beside the simple systems."""
