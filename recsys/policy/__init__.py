"""The policy of a list: orders scored candidates position by position, with the propensity of each item.

Each list flips one coin of three sides. With probability u (`uniform_share`) it is greedy but for one slot,
drawn uniformly of the first S = UNIFORM_SLOTS positions, whose item is drawn uniformly of those that the
rules allow there. Otherwise, with probability epsilon, it is drawn by Plackett-Luce (PL), one position
after the other; and else it is greedy. The rules apply inside each draw: at each position only the items
that the rules allow there take part. So the first k items of a list (its prefix) have the probability

    P(prefix) = G + D + W + U
    G = (1 - u) (1 - epsilon) * 1[the greedy list begins with it]
    D = (1 - u) epsilon * PL(prefix)
    W = u (S - k) / S * 1[the greedy list begins with it]     (the slot is still below; 0 from k = S on)
    U = the slot is above: where k is the slot, W(k - 1) / (S - k + 1) enters, divided by the number of items
        allowed there; U(k - 1) goes on where item k is the greedy choice given those above it

and the propensity of position k is P(prefix k) / P(prefix k - 1): the probability of that item given the
items above it, the coin included. A pinned item has propensity 1 and takes no part in the draw; where it
stands in the slot the list stays greedy, so what would enter U enters it undivided.

A list may be shown in several pages, and each page is ranked anew: with the candidates and scores of its own
instant, perhaps by another version, under rules that apply within the page. Write s for the items shown on
the pages before, and H for everything else that has happened since: a new version, withdrawn items, what the
user did. H may depend on s, but given s it does not depend on the coin, which nobody else sees. So by Bayes

    P(explore | s, H) = P(explore | s) = D(s) / P(s)

(of the other sides likewise) and the probability of the next item i, given everything shown above it, is

    P(i | s, H) = P(greedy | s) * 1[i is the greedy choice now] + P(explore | s) * PL_now(i) + …
                = P(s + i) / P(s)

where G is multiplied by the indicator and D by the PL probability under the version that ranks the page; W
and U likewise, by the choices and the number of allowed items now. So four numbers, log G, log D, log W and
log U, are all that a page needs to know of the pages before (`PrefixProbability`), and versions may change
between pages. Three rules keep this exact:

- The coin is the list's, flipped on page 1, and so is the slot; epsilon and u are those of page 1.
- A page draws with random numbers of its own: those of page 1 are not uniform any more once s is known.
- A page that must not explore (the journal is down) is greedy on all sides of the coin: it shows nothing of
  the coin, so its propensities are 1, G and D stay, and W enters U undivided for the slots that it passes.

Without caps and similarity penalty nothing changes from step to step but what is left. Then the whole page is
drawn at once: with independent Gumbel noise on the logits, their descending order is a Plackett-Luce draw
(Yellott 1977, Journal of Mathematical Psychology 15; Kool et al. 2019, arXiv 1903.06059).

Legend: N candidates, K positions of a page, D dimensions of an item embedding.
"""

from dataclasses import dataclass

import numpy as np

from recsys.policy.inputs import (
    DRAWN,
    POLICIES,
    Floats,
    Ints,
    PolicyInput,
    PolicyParameters,
    PropensityKind,
)
from recsys.policy.prefix import UNIFORM_SLOTS, PrefixProbability, extend, flip_coin
from recsys.policy.steps import Side, draw_page, pinned_slots

__all__ = [
    "DRAWN",
    "POLICIES",
    "UNIFORM_SLOTS",
    "DrawnRanking",
    "PolicyInput",
    "PolicyParameters",
    "PrefixProbability",
    "PropensityKind",
    "draw_ranking",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnRanking:
    """The drawn order of one page with its propensities, top first."""

    order: Ints
    """[K] candidates."""
    propensity: Floats
    """[K], in (0, 1]."""
    kinds: tuple[PropensityKind, ...]
    explored: bool
    """Whether this page was drawn; else it is greedy."""
    prefix: PrefixProbability
    """Of the list up to the end of this page."""


def draw_ranking(
    candidates: PolicyInput,
    parameters: PolicyParameters,
    length: int,
    seed: int,
    *,
    start: int = 0,
    prefix: PrefixProbability | None = None,
) -> DrawnRanking:
    """Fill `length` positions of a list, or fewer when there are fewer candidates.

    The same arguments give the same ranking, and a longer page begins with the shorter one. An item pinned
    below the end of the list comes last.
    Args: seed: of the list. start: the page's first position, from 0. prefix: of the pages before; None on
    page 1, which flips the coin.
    """
    rng = np.random.default_rng([seed, start])
    if prefix is None:
        prefix = flip_coin(parameters, float(rng.random()), seed)
    explored = parameters.explores and prefix.explored
    slots = pinned_slots(candidates, min(length, len(candidates.scores)), start)
    at = -1 if prefix.slot is None or not parameters.explores else prefix.slot - start
    uniform = at if 0 <= at < len(slots) and slots[at] < 0 else None
    side = Side(explored=explored, uniform=uniform)
    drawn = draw_page(candidates, parameters, slots, rng, side)
    propensity, prefix = extend(prefix, drawn, start, explores=parameters.explores)
    kinds: list[PropensityKind] = ["exact" if slot < 0 else "pinned" for slot in slots.tolist()]
    if uniform is not None:
        kinds[uniform] = "uniform"
    return DrawnRanking(
        order=drawn.order, propensity=propensity, kinds=tuple(kinds), explored=explored, prefix=prefix
    )
