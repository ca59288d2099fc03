"""Off-policy evaluation: what another policy would earn, from lists logged with exact propensities.

Arrays in, figures out. `logged`: the log. `target`: the policy in question. `evaluate`: value, interval and
support.
"""
