"""How fast each room is: one module a `recsys bench` command."""
