"""`recsys bench nightly --part long`'s JSON as a page: the true value by night, and how each night ended."""

from collections.abc import Mapping
from datetime import date
from typing import Any

from markupsafe import Markup

from benchmarks.loop.loop_pages import draw_nights
from recsys.report_templates import environment
from training.report.night.night_plots import day_lines, verdict_strip

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ title }}</title>
<style>{% include "style.css.j2" %}
.mark { fill:var(--card); stroke-width:1.6 }
.verdict { fill:var(--bad) } .verdict.promote { fill:var(--good) }
.verdict.hold,.verdict.hold-underpowered { fill:var(--warn) }</style></head>
<body><main><h1>{{ title }}</h1>
<section><h2>True value of a page</h2>{{ plot }}</section>
<section><h2>How nights ended</h2>{{ strip }}</section>
<section><table><tr><th>night</th><th class="words">ended</th><th>true value</th><th>never retrained</th>
<th>always published</th><th class="words">problems</th></tr>
{% for row in rows %}
<tr><td>{{ row.night }}</td><td class="words">{{ row.state }}</td><td>{{ row.true_value|number(3) }}</td>
<td>{{ row.never_retrained|number(3) }}</td><td>{{ row.always_published|number(3) }}</td>
<td class="words">{{ row.problems|join("; ") }}</td></tr>
{% endfor %}
</table></section></main></body></html>
"""


WORLDS = {
    "gated": "true_value",
    "never retrained": "never_retrained",
    "always published": "always_published",
}
"""What a world is called -> its figure in a night's row."""


def long_curves(tree: Mapping[str, Any]) -> str:
    """Draw the true value by night, a curve a world, as a file of its own."""
    worlds = {said: [row[name] for row in tree["nights"]] for said, name in WORLDS.items()}
    return draw_nights(f"true value of a page, shop of seed {tree['seed']}", worlds)


def long_page(tree: Mapping[str, Any]) -> str:
    """Fill the page."""
    rows = tree["nights"]
    days = [date.fromisoformat(row["night"]) for row in rows]
    lines = {said: [row[name] for row in rows] for said, name in WORLDS.items()}
    strip = [(day, row["state"].replace(" ", "-"), "") for day, row in zip(days, rows, strict=True)]
    return (
        environment("recsys", html=True)
        .from_string(_PAGE)
        .render(
            title=f"{len(rows)} nights that serve their own lists, shop of seed {tree['seed']}",
            plot=Markup(day_lines("True value of a page", days, lines, zero=False)),
            strip=verdict_strip(strip),
            rows=rows,
        )
    )
