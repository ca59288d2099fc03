"""A version as the workers of one host map it: prepared once, by one process.

    bundle in RUNS ─copied and hashed─▶ cache/<key>/bundle ─computed once─▶ cache/<key>/… ─mapped─▶ N workers

    cache.py     the private folder: one preparer at a time, who uses what, what is removed
    child.py     preparing in a process of its own, at idle priority
    prepare.py   what is done there: the verified copy, and the arrays that every worker would compute alike
    listing.py   which files a prepared folder has
    opened.py    a prepared folder -> what answers requests; its golden requests are answered again
    loader.py    both for a server

A server reads no bundle in RUNS itself: it could be rewritten under its eyes.
"""
