"""Settings of the model, searched on validation days."""
