"""Is the challenger no worse by a head's primary metric, and which heads have the labels to tell?

    margin >= 2.93 standard errors   the head decides: an equal model passes in 9 nights of 10
    less                             the head only vetoes, when it is shown to be worse, or halved
    shown to be better               is evidence as a head that decides

All heads that decide must pass, each at alpha (an intersection-union test, Berger 1982: no correction). A
rare head with some ninety positives has a standard error as large as all that the champion adds: asked to
pass, it would hold most nights of equal models.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

from recsys.config import GateConfig
from recsys.metrics.effect import Effect
from recsys.records import Check, Verdict

EQUAL_PASSES = 0.9
"""An equal model passes a head that decides at least so often."""
LEAST_TELLING = 10
"""Of fewer lists with unequal labels an interval is too short to show that a head is better."""
_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadComparison:
    """One head's difference from the champion; in all signed figures higher is better."""

    name: str
    effect: Effect
    """Of a two-sided interval of level 1 - 2 alpha."""
    adds: float
    """How much better the champion is than one prediction for all rows."""
    config: GateConfig
    error_scale: float = 1.0
    """The standard error is taken so many times: that of a night with another number of users."""
    telling: int | None = None
    """Lists with unequal labels, which a metric inside lists rests on; None: all rows tell."""

    @property
    def known(self) -> bool:
        """Tell whether there is an interval."""
        return self.effect.ci_low is not None

    @property
    def margin(self) -> float:
        """Give the largest loss that counts as no worse."""
        return self.config.margin * self.adds

    @property
    def interval(self) -> tuple[float, float]:
        """Give the lower and the upper end of what the challenger gains."""
        low, high = self.effect.ci_low, self.effect.ci_high
        assert low is not None
        assert high is not None
        return (low, high) if self.effect.higher_is_better else (-high, -low)

    @property
    def gain(self) -> float:
        """Give what the challenger gains."""
        difference = self.effect.difference
        assert difference is not None
        return difference if self.effect.higher_is_better else -difference

    @property
    def standard_error(self) -> float:
        """Read it off the interval."""
        low, high = self.interval
        return self.error_scale * (high - low) / (2 * normal_quantile(1 - self.config.alpha))

    @property
    def decides(self) -> bool:
        """Tell whether an equal model would pass in 9 nights of 10; what adds nothing decides nothing."""
        errors = normal_quantile(1 - self.config.alpha) + normal_quantile(EQUAL_PASSES)
        return 0 < self.margin >= errors * self.standard_error

    @property
    def equal_passes(self) -> float:
        """Give how often an equal model passes with the labels of this night."""
        if not self.standard_error:
            return 1.0
        return normal_cdf(self.margin / self.standard_error - normal_quantile(1 - self.config.alpha))

    @property
    def passes(self) -> bool:
        """Tell whether the whole interval is above the margin's loss."""
        return self.interval[0] >= -self.margin

    def vetoes(self, num_heads: int) -> bool:
        """Tell whether a head that does not decide shows harm."""
        return -self.gain > self.veto_at(num_heads)

    def is_better(self, num_heads: int) -> bool:
        """Tell whether the challenger is shown to be better, at alpha shared among the heads.

        That is evidence with few labels, too, and where the champion adds nothing, so that no margin could be
        small enough. But by three to five lists an equal model would be shown to be better in 9 % of
        nights for 2.5 % (simulated; of ten and thirty in 2.5 %).
        """
        if self.telling is not None and self.telling < LEAST_TELLING:
            return False
        return self.gain > normal_quantile(1 - self.config.alpha / num_heads) * self.standard_error

    def veto_at(self, num_heads: int) -> float:
        """Give the loss above which a head that does not decide shows harm.

        Worse: at alpha shared among the heads. Halved: more than half of what the champion adds is lost,
        where chance shows that in less than alpha of nights.
        """
        alpha, error = self.config.alpha, self.standard_error
        worse, half = normal_quantile(1 - alpha / num_heads) * error, self.adds / 2
        return min(worse, half) if half >= normal_quantile(1 - alpha) * error else worse

    def check(self, outcome: Verdict, why: str = "") -> Check:
        """Say the outcome with its figures."""
        effect = self.effect
        if not self.known:
            detail = f"no interval on {effect.rows} rows of {effect.users} users"
            return Check(name=self.name, outcome=outcome, detail=detail + why, numbers={"rows": effect.rows})
        assert effect.a is not None
        assert effect.b is not None
        low, high = effect.ci_low, effect.ci_high
        detail = (
            f"{effect.b:.4f}, champion {effect.a:.4f}, difference {effect.b - effect.a:+.4f} "
            f"[{low:+.4f}, {high:+.4f}], margin {self.margin:.4f}, {effect.users} users, an equal model "
            f"passes {self.equal_passes:.0%} of such nights"
        )
        numbers = {
            "challenger": effect.b,
            "champion": effect.a,
            "ci_low": low,
            "ci_high": high,
            "margin": self.margin,
            "standard_error": self.standard_error,
            "equal_passes": self.equal_passes,
            "rows": effect.rows,
        }
        return Check(
            name=self.name,
            outcome=outcome,
            detail=detail + why,
            numbers={key: float(value) for key, value in numbers.items() if value is not None},
        )


def check_comparisons(heads: Sequence[HeadComparison], *, may_only_veto: bool = False) -> list[Check]:
    """Check each head, knowing whether another one has the labels to decide.

    Args: may_only_veto: those that have not need not pass, even where none has.
    """
    return [_check(head, len(heads), may_only_veto or _may_only_veto(heads)) for head in heads]


def check_evidence(heads: Sequence[HeadComparison], config: GateConfig) -> list[Check]:
    """Hold a night that has a champion and nothing to compare it by: no head and no order has the labels.

    Args: heads: the comparisons with the champion.
    """
    if any(head.known for head in heads):
        return []
    detail = f"no head has {config.min_rows} labelled rows with unequal labels, so nothing was compared"
    remedy = '; run a night with more labels, lower [gate] min_rows, or set [gate] underpowered = "promote"'
    hold = config.underpowered == "hold"
    outcome = Verdict.HOLD_UNDERPOWERED if hold else Verdict.PROMOTE
    return [Check(name="labels", outcome=outcome, detail=detail + remedy * hold, numbers={})]


def _may_only_veto(heads: Sequence[HeadComparison]) -> bool:
    """Tell whether heads without the labels to decide need not pass: one decides, or is shown better."""
    promotes = any(head.config.underpowered == "promote" for head in heads)
    return promotes or any(head.known and (head.decides or head.is_better(len(heads))) for head in heads)


def _check(head: HeadComparison, num_heads: int, may_only_veto: bool) -> Check:
    if head.known and head.passes:
        return head.check(Verdict.PROMOTE)
    if head.known and head.decides:
        shown = head.interval[1] < -head.margin
        return head.check(Verdict.HOLD if shown else Verdict.HOLD_UNDERPOWERED)
    if head.known and head.vetoes(num_heads):
        return head.check(Verdict.HOLD, "; too few labels to decide, but enough to show a loss")
    if may_only_veto:
        return head.check(Verdict.PROMOTE, "; too few labels to decide: it shows no loss")
    why = "; too few labels to decide, and no other head has enough"
    remedy = '; run a night with more labels, or set [gate] underpowered = "promote"'
    return head.check(Verdict.HOLD_UNDERPOWERED, why + remedy)


def normal_quantile(share: float) -> float:
    """Give the value below which a standard normal variable lies with this chance."""
    return _NORMAL.inv_cdf(share)


def normal_cdf(value: float) -> float:
    """Give the chance that a standard normal variable lies below a value."""
    return _NORMAL.cdf(value)
