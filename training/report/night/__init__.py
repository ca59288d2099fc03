"""The page of a night: its data, how the model did over the nights, why it went live or not."""
