"""A user's own files -> the canonical tables; a mapping file says which column is what."""
