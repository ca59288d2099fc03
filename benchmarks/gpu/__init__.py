"""Training and scoring on a GPU: what `benchmarks/gpu.sh` measures on a machine with torch and numpy alone.

`recsys bench gpu-inputs FILE` makes the inputs beforehand: batches of the product model, cut from a log.
A parent process without torch runs `parts.PARTS` in a worker, in order, each with a limit of time.
"""
