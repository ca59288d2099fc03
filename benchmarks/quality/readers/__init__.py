"""Read published files of sets that no source of `features` reads."""
