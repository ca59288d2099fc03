"""The catalogue in memory: which items exist, what a request may be answered with, what was upserted.

    items.py      one item's row, and a patch of it
    base.py       the bundle's items as arrays that several processes may share
    filters.py    availability, categories and prices as bitmaps
    overlay.py    the items upserted since, beside those arrays; all versions of a server share the patches
    view.py       both together, as one request sees them
    live.py       one version's catalogue and scorer as of now; an item is encoded before it is visible

No request and no upsert does work that grows with the number of items, bitmaps apart.
"""

from serving.catalogue.items import ItemPatch, ItemRow
from serving.catalogue.view import Allowed, Catalogue

__all__ = ["Allowed", "Catalogue", "ItemPatch", "ItemRow"]
