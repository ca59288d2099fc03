"""Prints a ranked list on the terminal."""

from rich.console import Console, JustifyMethod
from rich.table import Table

from serving.client_values import Answer


def print_explanation(answer: Answer) -> None:
    """Print where the scores come from: the history used, and each item's parts, nearest items and gates."""
    console = Console(markup=False, emoji=False)
    events = [f"{e.item_id} ({e.kind}, {_age(e.age_s)} ago)" for e in answer.history]
    console.print(f"history: {', '.join(events) or 'none'}")
    weights = [f"{task} {weight:g}" for task, weight in sorted(answer.weights.items())]
    console.print(f"{answer.formula} score, weights: {', '.join(weights)}")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in (
        "#",
        "parts of the score",
        "sources",
        "nearest of the history",
        "gates (weight of each expert)",
    ):
        table.add_column(name, justify="right" if name == "#" else "left", overflow="fold")
    for item in answer.items:
        found = item.explanation
        if found is None:
            continue
        table.add_row(
            str(item.position),
            "\n".join(f"{task} {part:+.4f}" for task, part in sorted(found.contributions.items())),
            "\n".join(item.sources),
            "\n".join(f"{near.title or near.item_id} {near.cosine:.2f}" for near in found.nearest),
            "\n".join(
                f"{task} {' '.join(f'{weight:.2f}' for weight in gate)}"
                for task, gate in sorted(found.gates.items())
            ),
        )
    console.print(table)


def _age(seconds: float) -> str:
    """Return a duration in its largest unit."""
    for unit, length_s in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length_s:
            return f"{seconds / length_s:.0f} {unit}"
    return f"{seconds:.0f} s"


def print_answer(answer: Answer, user: str, similar_to: str = "") -> None:
    """Print a ranked list with predictions and reasons, and notes on the answer.

    Args: similar_to: the item that the list was to be similar to, if any.
    """
    console = Console(markup=False, emoji=False)  # ids and titles are printed as they are
    if similar_to in answer.missing_item_ids:
        console.print(f"unknown: {similar_to}; this is the list of user {user!r} instead", style="yellow")
    heads = sorted({task for item in answer.items for task in item.predictions})
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("#", "item", "title", "score", *heads, "reasons"):
        justify: JustifyMethod = "right" if name in ("#", "score", *heads) else "left"
        table.add_column(name, justify=justify, overflow="fold" if name == "item" else "ellipsis")
    for item in answer.items:
        predictions = [f"{item.predictions[task]:.4f}" for task in heads]
        reasons = ";\n".join(item.reasons)  # a long one is wrapped, too
        table.add_row(
            str(item.position), item.item_id, item.title, f"{item.score:.4f}", *predictions, reasons
        )
    console.print(table)
    degraded = f", degraded: {', '.join(answer.degradation)}" if answer.degradation else ""
    version = answer.bundle_version or "no bundle"
    if answer.known_user is False and not answer.degradation:
        console.print(f"user {user!r} is unknown: this is the list of a new user", style="yellow")
    console.print(
        f"{len(answer.items)} items, {version}, {1000 * answer.server_s:.1f} ms{degraded}",
        style="dim",
    )
