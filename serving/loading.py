"""Loads a bundle from disk as a ServedModel: verified, and checked to reproduce its golden requests."""

from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import structlog
import torch
from threadpoolctl import threadpool_limits

from features.loading import Answering
from features.store import FeatureStore
from recsys.bundle import Bundle, load_bundle
from recsys.index_costs import with_measured_cutover
from recsys.item_bias import bias_by_row
from recsys.model.scorer import Scorer
from recsys.newcomers import times_shown
from serving.catalogue import Catalogue
from serving.catalogue.popular import Popular
from serving.devices import ON_CPU, Devices
from serving.engine_choice import choose_engine
from serving.fresh_item_encoder import FreshItemEncoder
from serving.served_model import ServedModel

_log = structlog.get_logger(__name__)


def use_threads(count: int) -> None:
    """Set the number of threads of one call's products; other cores are for other calls.

    NumPy's products too: their threads wait for each other, for longer than a call's small products take.
    """
    torch.set_num_threads(count)
    threadpool_limits(count, user_api="blas")


def load_model(path: Path, store: FeatureStore, devices: Devices = ON_CPU) -> ServedModel:
    """Load a bundle and check that this host, with these devices, reproduces its golden requests.

    Raises: BundleError; ConfigError when a device has no room for the item vectors.
    """
    bundle = load_bundle(path)
    bundle = with_index_on(bundle, devices)
    loaded = Answering.of(bundle, store, partial(Scorer, device=devices.scorer))
    catalogue = Catalogue.from_frame(bundle.items)
    popular = Popular.of_bundle(catalogue, bundle.popular)
    shown = times_shown(bundle.items)
    return checked_model(loaded, catalogue, popular, bias_of_bundle(bundle), shown, devices)


def bias_of_bundle(bundle: Bundle) -> npt.NDArray[np.float32]:
    """Lay a bundle's biases out by its items [I]."""
    return bias_by_row(bundle.item_bias, bundle.items["item_id"])


def with_index_on(bundle: Bundle, devices: Devices) -> Bundle:
    """Measure which way a filtered search goes on this host, and put the index on its device.

    Raises: ConfigError when the device has no room for the item vectors.
    """
    index = with_measured_cutover(bundle.index, bundle.config.retrieval.num_candidates)
    return replace(bundle, index=index.on(devices.index))


def checked_model(
    loaded: Answering[Bundle, Scorer],
    catalogue: Catalogue,
    popular: Popular,
    item_bias: npt.NDArray[np.float32],
    times_shown: npt.NDArray[np.int64],
    devices: Devices,
) -> ServedModel:
    """Answer a bundle's golden requests again, and put together what answers with it.

    Raises: BundleError when this process does not reproduce them.
    """
    bundle = loaded.bundle
    choice = choose_engine(loaded, devices.engine)
    index = bundle.index
    _log.info("index", version=bundle.version, **index.summary(), **asdict(index.cutover))
    return ServedModel(
        version=bundle.version,
        catalogue=catalogue,
        popular=popular,
        item_bias=item_bias,
        times_shown=times_shown,
        past=loaded.scorer.past,
        tasks=bundle.config.tasks,
        fusion=bundle.manifest.fusion,
        scorer=loaded.scorer,
        features=loaded.features,
        encode_items=FreshItemEncoder(
            loaded.encoder, catalogue.base.items, bundle.config.features.group_items_by
        ).encode,
        items_as_of_ms=bundle.manifest.snapshot_at_ms,
        device=str(devices.scorer),
        engine=choice.engine.name,
        engines_refused="; ".join(f"{name}: {why}" for name, why in choice.refused.items()),
        index_kind=index.kind,
        index_cutover=asdict(index.cutover),
        index_device=str(devices.index),
    )
