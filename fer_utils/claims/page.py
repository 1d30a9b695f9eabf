"""The audit as HTML: one row per claim, details folded, a choice of the verdict to show."""

from pathlib import Path

import jinja2

from fer_utils.claims.claims import load_tolerances
from fer_utils.claims.legend import GROUPS, SELECTION, SIGNS, VERDICTS, tally, tally_table
from fer_utils.findings.figures import Displayable

HERE = Path(__file__).parent

LOADER = jinja2.FileSystemLoader(HERE)
TEMPLATES = jinja2.Environment(loader=LOADER, autoescape=True, trim_blocks=True, lstrip_blocks=True)


def figure_words(anchor):
    """``"Fig. 5.1"`` for ``"fig-5-1"``."""
    kind, *numbers = anchor.split("-")
    return f"{'Table' if kind == 'table' else 'Fig.'} {'.'.join(numbers)}"


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
    groups = []
    for group, title in GROUPS.items():
        rows = verdicts[verdicts["group"] == group]
        if len(rows):
            claims = [list(found.itertuples()) for _, found in rows.groupby("id", sort=False)]
            groups.append({"id": group, "title": title, "claims": claims, "tally": sentence(rows)})
    markup = TEMPLATES.get_template("claims.html.j2").render(
        css=(HERE / "claims.css").read_text(encoding="utf-8"),
        counts={verdict: n for verdict, n in tally(verdicts).items() if n},
        groups=groups,
        n=verdicts["id"].nunique(),
        selection=SELECTION,
        signs=SIGNS,
        table=tally_table(verdicts),
        tolerances=load_tolerances(),
        figure_words=figure_words,
    )
    lines = [f"{row.id} {row.reading}".rstrip() + f": {row.verdict}. {row.statement}" for row in verdicts.itertuples()]
    return Displayable(markup, "\n".join([f"{verdicts['id'].nunique()} claims: {sentence(verdicts)}", *lines]))


def sentence(verdicts):
    """``"2 reproduced, 3 undecided"``."""
    counts = tally(verdicts)
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict])
