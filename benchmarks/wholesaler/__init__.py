"""A made-up wholesaler's purchases: lists of a log without impressions, in which customers buy again."""
