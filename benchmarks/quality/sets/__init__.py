"""The public sets: one file with an `open_…` function each; `benchmarks.quality` says how to add one."""
