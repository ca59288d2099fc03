"""A bundle answers a day's requests as a server would, in the state of the day's start.

Not as on a server: what happens during the day is known the day after, a day's new items are not listed, and
no item is drawn uniformly (`[policy] uniform_share`).
Legend: R requests, K places.
"""

import json
from dataclasses import asdict, dataclass, field, replace
from datetime import date

import numpy as np
import polars as pl
import torch

from recsys.config.serving import PolicyConfig
from recsys.policy import PolicyInput, PolicyParameters, draw_ranking
from recsys.simulator.log_writer import Served
from recsys.simulator.logging_policy import Slates
from recsys.simulator.shop import Shop
from recsys.snapshot import DaySnapshot
from training.evaluation.audience import category_codes, coming_audience
from training.evaluation.candidates import Sources
from training.evaluation.lists import scored_users
from training.predict import BundlePredictor


@dataclass(slots=True, kw_only=True)
class DayServer:
    """Answers the requests of one day; what it expected of its lists is kept."""

    shop: Shop
    day: date
    previous: DaySnapshot
    """The day before, as it was published."""
    predictor: BundlePredictor
    policy: PolicyConfig
    """Of the server: a bundle does not say how much its lists explore."""
    seed: int
    expected_click: np.ndarray = field(default_factory=lambda: np.zeros(0))
    """[R, K]: calibrated prediction of each shown item."""

    @torch.no_grad()
    def __call__(self, requests: pl.DataFrame) -> Served:
        """Answer requests [R] in their order."""
        model, config = self.predictor.lists, self.predictor.bundle.config
        number = self.shop.dials.day_number(self.day)
        asked = requests.rename({"requested_at": "shown_at"})
        audience = coming_audience(self.previous, self.day, asked, config)
        here = np.zeros(len(self.shop.items.arrival_day), bool)
        here[self.shop.items.available(number)] = True
        items = self.shop.item_numbers(audience.catalogue["item_id"])
        audience = replace(audience, available=audience.available & here[items])
        categories = category_codes(audience.catalogue)
        # A uniformly drawn item has a propensity_kind of its own; the simulated log has "exact" alone.
        parameters = replace(PolicyParameters.of(self.policy), uniform_share=0.0)
        places, terms = self.shop.dials.page_size, model.fusion.sources
        shown, propensity, explored, expected = [], [], [], []
        sources = Sources.of(audience, config, terms=terms, bias=model.item_bias)
        for users, side in scored_users(model, audience, sources, terms):
            vectors = side.embedding_BD.cpu().numpy() if parameters.mmr else None
            for of_user in users:
                rows = of_user.candidates.rows
                drawn = draw_ranking(
                    PolicyInput(
                        scores=model.fusion.score(of_user.predictions, of_user.sources),
                        categories=categories[rows],
                        embeddings=None if vectors is None else vectors[rows],
                        repeats=of_user.sources["repeat"] > 0 if parameters.max_repeats else None,
                    ),
                    parameters,
                    places,
                    seed=int(np.random.default_rng([self.seed, number, of_user.user]).integers(2**31)),
                )
                shown.append(items[rows[drawn.order]])
                propensity.append(drawn.propensity)
                explored.append(drawn.explored)
                expected.append(of_user.predictions["click"][drawn.order])
        self.expected_click = np.stack(expected).astype(np.float64)
        return Served(
            slates=Slates(items=np.stack(shown), propensity=np.stack(propensity)),
            explored=np.array(explored),
            policy=parameters.name,
            policy_parameters=json.dumps(asdict(parameters)),
            bundle_version=self.predictor.bundle.version,
        )
