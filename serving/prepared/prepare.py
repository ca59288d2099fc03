"""Fills a folder with a verified copy of a bundle, and with what every worker would compute of it alike.

    bundle/          the copy
    items/           the catalogue, of which rows are taken
    item_rows/       the catalogue as the scorer reads it
    catalogue/       ids, categories, and the bitmaps of the filters
    popular/         the popularity list by row
    item_bias.npy    what the heads miss of each item
    times_shown.npy  how often each item was shown
    vocabularies/    the large ones, by name

No parser reads a file before its hash was found right.
"""

import os
from pathlib import Path

import numpy as np

from features.encode import Encoder
from features.online import encode_items
from recsys.bundle import Bundle, read_bundle
from recsys.bundle_copy import copy_verified
from recsys.files import sync_folder
from recsys.mapped_frame import write_frame
from recsys.model.scorer import Scorer
from recsys.newcomers import times_shown
from recsys.user_key import name_alone
from serving.catalogue import Catalogue
from serving.catalogue.popular import Popular
from serving.loading import bias_of_bundle
from serving.prepared.listing import write_listing

BUNDLE = "bundle"
ITEMS = "items"
ITEM_ROWS = "item_rows"
ITEM_BIAS = "item_bias.npy"
TIMES_SHOWN = "times_shown.npy"
CATALOGUE = "catalogue"
POPULAR = "popular"
VOCABULARIES = "vocabularies"


def prepare(source: Path, target: Path, final: Path) -> None:
    """Make a folder, fill it, and give it its final name when it is whole and on the disk.

    Raises: BundleError when the bundle is damaged; OSError, or an error of Polars, when there is no room.
    """
    target.mkdir(mode=0o700)
    copy_verified(source, target / BUNDLE)
    bundle = read_bundle(target / BUNDLE, name_alone)
    _write_catalogue(bundle, target)
    items = encode_items(Encoder.from_config(bundle.config, bundle.encoder), bundle.items)
    Scorer(bundle, items).items.write(target / ITEM_ROWS)
    for name, vocabulary in bundle.encoder.vocabularies.items():
        if not vocabulary.is_small:
            vocabulary.write_table(target / VOCABULARIES / name)
    write_listing(target)
    os.rename(target, final)
    sync_folder(final.parent)


def _write_catalogue(bundle: Bundle, target: Path) -> None:
    write_frame(bundle.items, target / ITEMS)
    catalogue = Catalogue.from_frame(bundle.items)
    catalogue.base.write(target / CATALOGUE)
    Popular.of_bundle(catalogue, bundle.popular).write(target / POPULAR)
    np.save(target / ITEM_BIAS, bias_of_bundle(bundle))
    np.save(target / TIMES_SHOWN, times_shown(bundle.items))
