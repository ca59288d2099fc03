"""Whether nights may be trusted: killed, run again."""
