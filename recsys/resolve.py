"""Import what "module:name" names. A table of such names can be read without importing what they name."""

from functools import cache
from importlib import import_module
from typing import Any


@cache
def resolve(target: str) -> Any:
    """Import the module of "module:name" and give what it calls by that name.

    Raises: ImportError or AttributeError when it is not there: a mistake in our own table.
    """
    module, name = target.split(":")
    return getattr(import_module(module), name)
