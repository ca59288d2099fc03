"""Dataframely without SQLAlchemy, which it imports where it finds it, for methods that nothing here calls.

That is 0.4 of the 0.7 seconds that `import recsys.schema` took, in every command, rank and worker.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_UNUSED: Final = "sqlalchemy"


@contextmanager
def _not_found(name: str) -> Iterator[None]:
    """Have a package that is not imported yet look as if it were not installed."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # what Python's import takes for "not there"
    try:
        yield
    finally:
        del sys.modules[name]


with _not_found(_UNUSED):
    import dataframely as dy

__all__ = ["dy"]
