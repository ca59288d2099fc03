"""A config seen through declared keys: what a stage does not declare it cannot read.

A hash of the view is therefore a hash of all that the stage can depend on.

A key is a path of field names, "features" or "features.daily_cap"; in a list of tables ("tasks.window") it is
that key of every entry. A view is of the config's own class: functions that take a config take a view.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel

_OWNER = "(owner of the view)"
Tree = dict[str, "Tree"]
Model = TypeVar("Model", bound=BaseModel)


class UndeclaredKeyError(LookupError):
    """Raised when code reads a key that its stage does not declare: the code is wrong, not the config."""


class Viewable(BaseModel):
    """A model of which a view may leave fields out."""

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            owner = self.__dict__.get(_OWNER)
            if owner is None or name not in type(self).model_fields:
                return super().__getattr__(name)
            raise UndeclaredKeyError(
                f"{owner[0]} reads the config key {owner[1]}{name}, which it does not declare; "
                f"add it to the keys of {owner[0]}, or do not read it there"
            )


def view(config: Model, owner: str, keys: Iterable[str]) -> Model:
    """Give the config with some keys alone; reading another raises UndeclaredKeyError.

    Args: owner: who reads it, for the error. A key that is declared as a whole is the config's own object.
    Raises: ValueError for a key that the config does not have.
    """
    seen: Model = _only(config, _tree(keys), owner, "")
    return seen


def values(seen: BaseModel) -> dict[str, Any]:
    """Give what a view holds as JSON values, under the names of the TOML file; for hashes and manifests."""
    return seen.model_dump(mode="json", by_alias=True)


def _only(model: Any, tree: Mapping[str, Tree], owner: str, path: str) -> Any:
    if not tree:
        return model
    if isinstance(model, tuple):
        return tuple(_only(entry, tree, owner, path) for entry in model)
    fields = type(model).model_fields if isinstance(model, Viewable) else {}
    unknown = sorted(set(tree) - set(fields))
    if unknown:
        raise ValueError(f"{owner} declares the config key {path}{unknown[0]}, which does not exist")
    seen = model.model_copy()
    for name in fields:
        if name in tree:
            seen.__dict__[name] = _only(getattr(model, name), tree[name], owner, f"{path}{name}.")
        else:
            seen.__dict__.pop(name, None)
    seen.__dict__[_OWNER] = (owner, path)
    return seen


def _tree(keys: Iterable[str]) -> Tree:
    """Nest the keys; what is declared as a whole has no branches."""
    tree: Tree = {}
    whole = set(keys)
    for key in whole:
        names = key.split(".")
        if any(".".join(names[:n]) in whole for n in range(1, len(names))):
            continue
        branch = tree
        for name in names:
            branch = branch.setdefault(name, {})
    return tree
