"""One night: which day is for what, its stages, and how they are run."""
