"""The audit as HTML: one row per claim, details folded, a choice of the verdict to show."""

from functools import cache
from pathlib import Path

import jinja2
import yaml

from fer_utils.claims.verdicts import GROUPS, SELECTION, SIGNS, VERDICTS, tally, tally_table
from fer_utils.findings.figures import Displayable

HERE = Path(__file__).parent

#: Also part of the report's own style sheet.
CSS = HERE / "claims.css"


@cache
def template():
    """The template of the audit; it escapes what it is given."""
    loader = jinja2.FileSystemLoader(HERE)
    return jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True).get_template(
        "claims.html.j2"
    )


def figure_words(anchor):
    """``"Fig. 5.1"`` for ``"fig-5-1"``."""
    kind, *numbers = anchor.split("-")
    return f"{'Table' if kind == 'table' else 'Fig.'} {'.'.join(numbers)}"


def where_words(where):
    """A place in the thesis: ``"chapter 6"`` for ``"6"``, ``"Fig. 5.1"`` as it is."""
    return f"chapter {where}" if where[0].isdigit() else where


def render(verdicts):
    """Show the audit: a table for each group; each claim's row has the id ``claim-F01`` and so on.

    Parameters
    ----------
    verdicts : DataFrame
        As `fer_utils.claims.claims.judge` returns it.

    Returns
    -------
    fer_utils.findings.figures.Displayable
    """
    counts = {verdict: n for verdict, n in tally(verdicts).items() if n}
    groups = []
    for group, title in GROUPS.items():
        rows = verdicts[verdicts["group"] == group]
        claims = [list(found.itertuples()) for _, found in rows.groupby("id", sort=False)]
        if claims:
            groups.append({"id": group, "title": title, "claims": claims, "tally": sentence(rows)})
    tolerances = yaml.safe_load((HERE / "claims.yaml").read_text(encoding="utf-8"))["tolerances"]
    markup = template().render(
        css=CSS.read_text(encoding="utf-8"),
        counts=counts,
        groups=groups,
        n=verdicts["id"].nunique(),
        selection=SELECTION,
        signs=SIGNS,
        table=tally_table(verdicts),
        tolerances=tolerances,
        figure_words=figure_words,
        where_words=where_words,
    )
    lines = [
        f"{row.id}{f' ({row.reading})' if row.reading else ''}  {row.verdict}: {row.statement}"
        for row in verdicts.itertuples()
    ]
    return Displayable(markup, "\n".join([f"{verdicts['id'].nunique()} claims: {sentence(verdicts)}", *lines]))


def sentence(verdicts):
    """``"2 reproduced, 3 undecided"``."""
    counts = tally(verdicts)
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict])
