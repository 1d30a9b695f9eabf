"""The report's first screen: the answer, the tally, each model beside the thesis; folded, the reproducibility summary.

The summary has the sections of the ML Reproducibility Challenge (paperswithcode.com/rc2020). Its prose stands in
``template/opening.html.j2``; every number is computed from the run's files.
"""

from bs4 import BeautifulSoup

from fer_utils.claims import claims
from fer_utils.findings import statistics
from fer_utils.findings.figures import Displayable
from fer_utils.report import facts
from fer_utils.report.markup import render
from fer_utils.words import STARTS, device_text, duration, interval, listed, plural, tested_on

#: The thesis's central claim, and the figure whose claims stand beside the models.
CENTRAL = "F01"
FIGURE = "fig-5-1"


def opening(run, verdicts):
    """Show the report's first screen.

    Parameters
    ----------
    run : fer_utils.findings.results.Run
    verdicts : DataFrame
        As `fer_utils.claims.claims.judge` returns it.

    Returns
    -------
    fer_utils.findings.figures.Displayable
    """
    markup = render(
        "opening.html.j2",
        answer=answer(run, verdicts),
        n=verdicts["id"].nunique(),
        tally={verdict: n for verdict, n in claims.tally(verdicts).items() if n},
        signs=claims.SIGNS,
        rows=rows(run, verdicts),
        tested=tested_on(run.models) if run.models else "",
        key_findings=claims.key_findings(verdicts),
        telling=list(claims.telling(verdicts).itertuples()),
        central=verdicts[verdicts["id"] == CENTRAL].head(1).to_dict("records"),
        selection=claims.SELECTION,
        groups={claims.GROUPS[name]: n for name, n in verdicts["group"].value_counts(sort=False).items()},
        methodology=methodology(run),
        easy=easy(run),
        notices=[notice for notice in facts.notices(run) if notice.loud],
    )
    return Displayable(markup, BeautifulSoup(markup, "html.parser").get_text(" ", strip=True))


def answer(run, verdicts):
    """Say in a sentence whether the thesis's central claim holds in this run, or why the run cannot say."""
    if not run.is_result:
        return f"This run cannot say whether the thesis's results hold: {'; '.join(run.reasons.values())}."
    said = [
        f"{row.verdict}{f' ({row.reading})' if row.reading else ''}: {row.ours or row.reason}"
        for row in verdicts[verdicts["id"] == CENTRAL].itertuples()
    ]
    statement = verdicts.loc[verdicts["id"] == CENTRAL, "statement"].head(1).squeeze()
    return f"The thesis's central claim: {statement} In this run {'; '.join(said)}."


def rows(run, verdicts):
    """List one row per model: ``model, ours, note`` and ``claims``, the verdicts on what Figure 5.1 says of it."""
    about = {claim.id: claim.models[0] for claim in claims.load_claims() if claim.models and FIGURE in claim.figures}
    found = []
    for result in run.first_seeds:
        table = statistics.counted_intervals(*result.select("test")).set_index("metric")
        ours = interval(*table.loc["accuracy", ["value", "low", "high"]])
        judged = [row for row in verdicts.itertuples() if about.get(row.id) == result.model]
        found.append({"model": result.label, "ours": ours, "note": claims.collapsed(result), "claims": judged})
    return found


def methodology(run):
    """Say what was trained, on what, for how long; one sentence each."""
    if not run.models:
        return ["The thesis's own numbers were compared with each other. No training was found."]
    first, seconds = run.models[0].record, sum(r.record["times"]["train_seconds"] or 0 for r in run.models)
    trained = "; ".join(
        f"{result.label} from {STARTS[result.record['weights']['used']]}, "
        f"{'seeds' if len(run.by_name(result.model)) > 1 else 'seed'} {listed(r.seed for r in run.by_name(result.model))}, "
        f"{plural(result.record['epochs']['run'], 'epoch')}, {result.record['split']['train']:,} training images"
        for result in run.first_seeds
    )
    protocols = dict.fromkeys(facts.PROTOCOLS[result.record["protocol"]] for result in run.models)
    return [
        f"Trained by the notebooks of this repository, profile {facts.profile_of(run)}: {trained}.",
        f"Data: {first['data']['source']}. {first['data']['description']}",
        f"Protocol: {'; '.join(protocols)}. Numbers beside claims are those on {tested_on(run.models)}.",
        f"Computed on {facts.distinct([r.record for r in run.models], device_text)} in {duration(seconds)} of training, "
        f"with {facts.software_text(first)}.",
    ]


def easy(run):
    """Say what went without trouble in this run."""
    lines = []
    if run.dataset.get("fingerprint", {}).get("known"):
        lines.append(f"Recognising the data: {run.dataset['fingerprint']['description']}")
    if run.models:
        lines.append(f"{len(run.models)} of {plural(len(run.trainings), 'training')} ended without an error.")
    return lines or ["Nothing has been run yet."]
