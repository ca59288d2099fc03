"""Peers that `recsys bench quality` trains beside ours, each in an environment of its own."""
