"""Taobao UserBehavior: a raw timed funnel of page views, carts, favourites and purchases.

Real: every event, its second, its item and the item's category. The log says what users opened, not what they
were shown: an item that was listed and not opened leaves no trace. So every page view (`pv`) is an impression
that was clicked, and items the user had not opened by the end of that day are drawn as negatives, marked
`sampled`, with their exact rate. Click rates say how items were sampled, nothing about a page; clicks are
worth having because the other kinds are scarce.

`cart`, `fav` and `buy` are feedback `cart`, `favourite` and `purchase` of the latest view of the same user
and item within `WINDOW_S`, a day: 12 % of the carts, 7 % of the favourites and 48 % of the purchases find
one. 32 % of the (user, item) pairs that were bought have no view in the log: those purchases are organic,
there is no chain from click to purchase, and a config must not name click as purchase's parent.

Days are Asia/Shanghai. The data set covers 25 November to 3 December 2017; rows outside (clocks) are
quarantined. Whole histories of few users: most items have one user. Use it for funnels, categories and cold
items.
"""

from datetime import date
from pathlib import Path
from typing import Final

from features.sources.conversion import ConversionSummary, Step, require_folder, silent
from features.sources.mapped.convert import convert_mapped
from features.sources.mapped.mapping import Events, ItemColumns, Mapping, Match
from recsys.log import InteractionLog

TIMEZONE: Final = "Asia/Shanghai"
WINDOW_S: Final = 86_400
KINDS: Final = {"pv": "click", "cart": "cart", "fav": "favourite", "buy": "purchase"}
MAPPING: Final = Mapping(
    timezone=TIMEZONE,
    first_day=date(2017, 11, 25),
    last_day=date(2017, 12, 3),
    events=Events(
        files="UserBehavior*.csv*",
        columns=("user_id", "item_id", "category_id", "behaviour", "seconds"),
        user="user_id",
        item="item_id",
        kind="behaviour",
        kinds=KINDS,
        time="seconds",
        time_format="s",
        item_columns=ItemColumns(category="category_id"),
    ),
    match=Match(window=WINDOW_S, opens=("click",)),
)


def convert(src: Path, out: InteractionLog, *, step: Step = silent) -> ConversionSummary:
    """Convert a folder with UserBehavior*.csv, plain or gzipped, as Tianchi gives it (no header line).

    Raises: DataError, naming the file and what is wrong with it.
    """
    require_folder(src)
    return convert_mapped(src, out, MAPPING, form="csv", name="taobao", step=step)
