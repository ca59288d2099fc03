"""The parameters ("dials") of the simulated shop, each documented here."""

from datetime import UTC, date, datetime, timedelta

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

FloatArray = npt.NDArray[np.float64]
SmallFloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

DAY_MS = 86_400_000


class ShopDials(BaseModel):
    """Parameters of one simulated shop. Effects on logits and stars are standard deviations by default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # --- size and calendar (UTC days) ---
    users: int = Field(default=5_000, ge=10)
    """Users known on the first day; `new_user_rate` adds to them."""
    items: int = Field(default=2_000, ge=100)
    """Items available on each day. As many are withdrawn as arrive, so the log has more items than this."""
    days: int = Field(default=30, ge=1)
    """Days in the log."""
    last_day: date = date(2026, 1, 30)
    """The log's last day; `days` moves the first one."""
    page_size: int = Field(default=10, ge=1, le=100)
    requests_per_user_day: float = Field(default=2 / 3, gt=0)
    """Requests per day = this × `users`. Default: 3,333 pages of 10 a day, 1M impressions in 30 days."""
    new_user_rate: float = Field(default=0.004, ge=0, le=0.2)
    """New users per day, as a share of `users`."""
    new_item_rate: float = Field(default=0.025, ge=0, le=0.2)
    """New items per day, as a share of `items`. As many are withdrawn, unpopular items more often."""
    activity_spread: float = Field(default=0.7, ge=0)
    """Standard deviation of the logarithm of a user's activity."""

    popularity_flat: float = Field(default=180.0, gt=0)
    """Zipf-Mandelbrot: popularity rank r has the weight 1 / (r + this). With 1 / r alone, the 50 most popular
    items would get half of all clicks."""

    # --- tastes ---
    rank: int = Field(default=16, ge=2, le=16)
    """Latent taste dimensions; the k-th has variance in proportion to 1/sqrt(k)."""
    categories: int = Field(default=20, ge=2, le=20)
    category_share: float = Field(default=0.7, ge=0, le=1)
    """Share of an item's taste variance that its category explains."""
    attribute_share: float = Field(default=0.15, ge=0, le=1)
    """Share of a user's taste variance that age band and country explain."""
    relatedness: float = Field(default=0.7, ge=-1, le=1)
    """Cosine between the item factors of click and those of purchase and of rating: 1 the same taste for all
    tasks, 0 independent tastes, -1 opposite ones. It applies to item appeals too."""
    contrary_users: float = Field(default=0.0, ge=0, le=1)
    """Share of users who buy and rate against the taste by which they click. At .5 clicks carry no
    information on purchases and ratings, and sharing between heads hurts. (`relatedness` = -1 does not: it
    changes the items for all users alike, which a head undoes by a change of sign.) The informed oracle
    ignores it."""
    drift: float = Field(default=0.012, ge=0)
    """Standard deviation over users of the angle (radians) by which a taste rotates per day; at .012 tastes a
    month apart correlate by .94."""
    title_words: int = Field(default=3, ge=0)
    """Taste words in a title, beside the category's noun."""
    description_words: int = Field(default=16, ge=0)
    """Taste words in a description."""
    word_sharpness: float = Field(default=2.0, ge=0)
    """How strongly an item's factors determine its words; at 0 text is noise."""

    # --- click: P(examined) · sigmoid(base + taste + appeal + user + context + noise) ---
    click_base: float = -4.25
    click_taste: float = 1.25
    click_appeal: float = 0.45
    click_user: float = 0.35
    click_noise: float = 0.3
    """Noise per user × item × day, which no feature explains."""
    popularity_appeal: float = Field(default=0.25, ge=-1, le=1)
    """Correlation of an item's popularity with its appeal."""
    position_decay: float = Field(default=0.3, ge=0)
    """Position p is examined with probability p ** -this: .5 at position 10."""

    # --- purchase, given a click ---
    purchase_base: float = -3.4
    purchase_taste: float = 0.35
    purchase_appeal: float = 0.25
    purchase_user: float = 0.2
    purchase_price: float = 0.15
    """How much one standard deviation of log price lowers the logit."""
    purchase_noise: float = 0.2
    refund_share: float = Field(default=0.05, ge=0, le=1)
    """Share of purchases that are refunded, half of them within half an hour."""

    # --- rating, 1 to 5 in half stars, on a share of clicks and of purchases ---
    rating_base: float = 2.6
    rating_taste: float = 0.6
    rating_appeal: float = 0.35
    rating_user: float = 0.35
    rating_noise: float = 0.3
    """Noise per user × item × day, part of the true expected rating."""
    rating_residual: float = 0.6
    """Noise of a single rating, not part of the true expected rating."""
    rated_clicks: float = Field(default=0.12, ge=0, le=1)
    rated_purchases: float = Field(default=0.5, ge=0, le=1)

    # --- the logging policy ---
    candidates: int = Field(default=600, ge=1)
    """Draws (with replacement) for one request's candidate set; repeated items are dropped."""
    popular_share: float = Field(default=0.25, ge=0, lt=1)
    """Share of the draws made in proportion to popularity; the rest are uniform."""
    policy_popularity: float = 0.5
    """Weight of log popularity in the policy's utility."""
    policy_taste: float = 4.5
    """Weight of the policy's estimate of the taste."""
    policy_knowledge: float = Field(default=0.85, ge=0, le=1)
    """Correlation of that estimate with the user's true taste."""
    candidates_logged: float = Field(default=0.05, ge=0, le=1)
    """Share of requests whose candidate set is written to the log."""

    # --- delivery of feedback ---
    late_minutes: float = Field(default=0.02, ge=0, le=1)
    """Share received 5 to 60 minutes after it occurred; the rest takes seconds."""
    late_hours: float = Field(default=0.003, ge=0, le=1)
    """Share received 1 to 12 hours after it occurred."""

    @property
    def first_day(self) -> date:
        """Return the log's first day."""
        return self.last_day - timedelta(days=self.days - 1)

    @property
    def requests_per_day(self) -> int:
        """Return the mean number of requests a day."""
        return max(1, round(self.users * self.requests_per_user_day))

    def day_number(self, day: date) -> int:
        """Count days since the first one (0)."""
        return (day - self.first_day).days

    def date_of(self, number: int) -> date:
        """Return the date of a day number."""
        return self.first_day + timedelta(days=number)

    @property
    def first_ms(self) -> int:
        """Return the instant at which the first day begins, in UTC milliseconds."""
        first = self.first_day
        return int(datetime(first.year, first.month, first.day, tzinfo=UTC).timestamp() * 1000)
