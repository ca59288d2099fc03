"""A user's own files -> the canonical tables, told by a mapping file which column is what."""
