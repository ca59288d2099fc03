"""What goes with what: item-item weights from users' histories, weighted by recency; no torch."""
