"""Measure the product. Benchmarks import every room; no room imports them, and the wheel does not hold them.

`commands` has what `recsys bench …` runs. `quality` compares with simple systems on public sets, and its
docstring says how to add a set. `speed` times each room.
"""
