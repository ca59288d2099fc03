"""Learning during the day: impressions whose windows have closed make a new version of the live one."""
