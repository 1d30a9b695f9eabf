"""The audit as HTML: a line per claim, all else folded into it, and a choice of the verdicts to show."""

from pathlib import Path

import jinja2

from fer_utils.claims.claims import GROUPS, NOT_TESTABLE, SELECTION, SIGNS, load_tolerances, tally
from fer_utils.findings.figures import Displayable
from fer_utils.words import listed

HERE = Path(__file__).parent

#: How a command begins that a reason ends with.
COMMAND = "./run_all.sh"

TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True
)


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
            claims = [line(list(found.itertuples())) for _, found in rows.groupby("id", sort=False)]
            shared = shared_reasons(rows, f"reason-{group}")
            groups.append({"id": group, "title": title, "claims": claims, "tally": sentence(rows), "shared": shared})
    markup = TEMPLATES.get_template("claims.html.j2").render(
        css=(HERE / "claims.css").read_text(encoding="utf-8"),
        counts=tally(verdicts),
        groups=groups,
        n=verdicts["id"].nunique(),
        selection=SELECTION,
        signs=SIGNS,
        tolerances=load_tolerances(),
        figure_words=figure_words,
        parts=parts,
    )
    lines = [f"{row.id} {row.reading}".rstrip() + f": {row.verdict}. {row.statement}" for row in verdicts.itertuples()]
    return Displayable(markup, "\n".join([f"{verdicts['id'].nunique()} claims: {sentence(verdicts)}", *lines]))


def line(rows):
    """What stands in a claim's line: its verdicts with their readings, and our figures; `rows` has one per reading."""
    verdicts, ours = {}, {}
    for row in rows:
        verdicts.setdefault(row.verdict, []).append(row.reading)
        ours.setdefault(row.ours, []).append(row.reading)
    ours.pop("", None)
    alone = len(ours) == 1
    return {
        "first": rows[0],
        "rows": rows,
        "verdicts": {verdict: listed(readings) if len(verdicts) > 1 else "" for verdict, readings in verdicts.items()},
        "ours": "; ".join(text if alone else f"{listed(readings)}: {text}" for text, readings in ours.items()),
    }


def shared_reasons(verdicts, name):
    """Reasons of several verdicts, each with its ``id``, `parts` and the claims' ``ids``, so that it is told once."""
    found = verdicts[verdicts["verdict"] == NOT_TESTABLE].groupby("reason", sort=False)["id"].unique()
    return {
        reason: {"id": f"{name}-{number}", "ids": list(ids), **parts(reason)}
        for number, (reason, ids) in enumerate(found[found.map(len) > 1].items(), 1)
    }


def parts(reason):
    """Split a reason into its text and the command at its end; "" where it has none."""
    text, mark, rest = reason.partition(COMMAND)
    return {"text": text.rstrip(), "command": mark + rest}


def sentence(verdicts):
    """``"2 reproduced, 3 undecided"``."""
    return ", ".join(f"{n} {verdict}" for verdict, n in tally(verdicts).items())
