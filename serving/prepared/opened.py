"""A prepared folder -> what answers requests. Arrays are mapped: a host has them in memory once."""

from pathlib import Path

import polars as pl

from features.encode import Encoder
from features.loading import Answering
from features.store import FeatureStore
from recsys.bundle import Bundle, map_bundle
from recsys.encoding import EncoderState
from recsys.errors import BundleError
from recsys.mapped_frame import MappedFrame
from recsys.mapped_tensors import map_array
from recsys.model.item_rows import ItemRows
from recsys.model.scorer import Scorer
from recsys.user_key import key_of_copy
from recsys.vocabulary import Vocabulary
from serving.catalogue import Catalogue
from serving.catalogue.base import BaseCatalogue
from serving.catalogue.popular import Popular
from serving.devices import Devices
from serving.loading import checked_model, with_index_on
from serving.prepared.prepare import (
    BUNDLE,
    CATALOGUE,
    ITEM_BIAS,
    ITEM_ROWS,
    ITEMS,
    POPULAR,
    TIMES_SHOWN,
    VOCABULARIES,
)
from serving.served_model import ServedModel


def open_prepared(folder: Path, source: Path, store: FeatureStore, devices: Devices) -> ServedModel:
    """Map a prepared version, and check that this process reproduces its golden requests with it.

    Every process checks: it is its own numbers that it answers with, and what it maps is what is checked.
    Args: source: the bundle that was prepared; the key of its users' hashes lies above it.
    Raises: BundleError; ConfigError when a device has no room for the item vectors.
    """
    try:
        bundle = _bundle(folder, source)
        items = MappedFrame.open(folder / ITEMS)
        catalogue = Catalogue.of(BaseCatalogue.open_folder(folder / CATALOGUE, items))
        popular, rows = Popular.map(folder / POPULAR), ItemRows.open(folder / ITEM_ROWS)
        item_bias, shown = map_array(folder / ITEM_BIAS), map_array(folder / TIMES_SHOWN)
    except (OSError, ValueError, TypeError, KeyError, pl.exceptions.PolarsError) as error:
        raise BundleError(f"{folder} cannot be mapped ({error}); it is prepared again") from error
    bundle = with_index_on(bundle, devices)
    scorer = Scorer(bundle, device=devices.scorer, item_rows=rows)
    encoder = Encoder.from_config(bundle.config, bundle.encoder)
    answering = Answering.around(scorer, bundle, store, encoder)
    return checked_model(answering, catalogue, popular, item_bias, shown, devices)


def _bundle(folder: Path, source: Path) -> Bundle:
    tables, find_key = folder / VOCABULARIES, key_of_copy(source)

    def load_vocabulary(file: Path) -> Vocabulary:
        table = tables / file.stem
        return Vocabulary.map(table, find_key) if table.is_dir() else Vocabulary.load(file, find_key)

    return map_bundle(folder / BUNDLE, EncoderState.load(folder / BUNDLE, load_vocabulary))
