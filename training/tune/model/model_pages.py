"""ModelReport -> report.html, report.json and best.toml."""

from pathlib import Path

from training.tune.model.bench import improvements
from training.tune.model.search import ModelReport
from training.tune.search_pages import write_search


def write_model(report: ModelReport, toml: str, out: Path) -> list[Path]:
    """Write report.html, report.json and best.toml into a folder."""
    names = list(report.importance)
    ended = [t for t in report.trials if t.state == "complete"]
    marks = [
        (float(n), t.values[names[0]], "knee" if t.number == report.best else "front", f"trial {t.number}")
        for n, t in enumerate(ended, 1)
    ]
    ranked = sorted(
        report.trials, key=lambda t: (t.state != "complete", -next(iter(t.values.values()), -1.0))
    )
    better = improvements(report.best_losses, report.baseline)
    return write_search(
        report,
        "model.html.j2",
        ("best.toml", toml),
        out,
        marks=marks,
        names=names,
        ranked=ranked,
        better=better,
    )
