"""Which code made a figure."""

from recsys.commit import CHECKOUT, commit

__all__ = ["CHECKOUT", "commit"]
