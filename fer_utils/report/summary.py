"""The report's first screen: the answer, the tally, each model beside the thesis; folded, the reproducibility summary.

The summary has the sections of the ML Reproducibility Challenge (paperswithcode.com/rc2020). Its prose stands in
``template/opening.html.j2``; every number is computed from the run's files.
"""

from bs4 import BeautifulSoup

from fer_utils.claims import claims
from fer_utils.claims.claims import GROUPS, SELECTION, SIGNS, tally
from fer_utils.claims.evidence import LABELS, Evidence
from fer_utils.claims.marks import collapsed
from fer_utils.findings.figures import Displayable
from fer_utils.report import facts
from fer_utils.report.markup import render
from fer_utils.words import STARTS, interval, tested_on

#: The thesis's central claim, and the figure whose first claims about a model stand beside it.
CENTRAL = "F01"
FIGURE = "fig-5-1"
CLAIMS_PER_MODEL = 2


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
    judged, models = verdicts.drop_duplicates("id"), rows(run, verdicts)
    markup = render(
        "opening.html.j2",
        answer=answer(run, verdicts, models),
        n_claims=len(judged),
        n_verdicts=len(verdicts),
        tally=tally(verdicts),
        signs=SIGNS,
        rows=models,
        absent=absent(run),
        tested=tested_on(run.models) if run.models else "",
        key_findings=claims.key_findings(verdicts),
        telling=list(claims.telling(verdicts).itertuples()),
        statement=central(judged),
        selection=SELECTION,
        groups={name.partition(":")[0]: int((judged["group"] == group).sum()) for group, name in GROUPS.items()},
        run=run,
        conditions=dict(facts.conditions(run)),
        starts=STARTS,
        seconds=sum(result.record["times"]["train_seconds"] or 0 for result in run.models),
        notices=[notice for notice in facts.notices(run) if notice.loud],
    )
    return Displayable(markup, BeautifulSoup(markup, "html.parser").get_text(" ", strip=True))


def absent(run):
    """Names of the thesis's models that the run lacks; MobileNet-V1 stands for V3, as in its chapters 5 and 6."""
    trained = {result.model.replace("_v1", "_v3") for result in run.models}
    wanted = {model: label for model, label in LABELS.items() if not model.endswith("_v1")}
    return [label for model, label in wanted.items() if not any(name.startswith(model) for name in trained)]


def central(verdicts):
    """Return the thesis's central claim, in our words."""
    return verdicts.loc[verdicts["id"] == CENTRAL, "statement"].iloc[0]


def answer(run, verdicts, models):
    """Say whether the thesis's central claim holds in this run, or why the run cannot say."""
    if not run.is_result:
        return f"This run cannot say whether the thesis's results hold: {'; '.join(run.reasons.values())}."
    said = [f"{verdict} ({why})" if why else verdict for verdict, why in by_verdict(verdicts, CENTRAL).items()]
    best = max(models, key=lambda row: row["accuracy"])
    return (
        f"The thesis says: {central(verdicts)} This run: {', '.join(said)}; the highest is {best['model']} with "
        f"{best['ours']}."
    )


def by_verdict(verdicts, name):
    """Return a claim's verdicts, each with its readings of the thesis; "" where all readings agree."""
    found = verdicts[verdicts["id"] == name].groupby("verdict", sort=False)["reading"].agg(", ".join).to_dict()
    return found if len(found) > 1 else dict.fromkeys(found, "")


def rows(run, verdicts):
    """List one row per model: ``model, accuracy, ours, note`` and ``claims``, what Figure 5.1 says of it first.

    Accuracies are those of the claims: the mean over the seeds, with images and seeds resampled together.
    """
    about = {claim.id: claim.models[0] for claim in claims.load_claims() if claim.models and FIGURE in claim.figures}
    thesis = verdicts.drop_duplicates("id").set_index("id")["thesis"]
    evidence, found = Evidence(run), []
    for result in run.first_seeds:
        seeds = [evidence.scored(other)["accuracy"] for other in run.by_name(result.model)]
        accuracy = evidence.combine(result.model, seeds)
        mean = f", mean of {len(seeds)} seeds" if len(seeds) > 1 else ""
        names = [name for name, model in about.items() if model == result.model][:CLAIMS_PER_MODEL]
        found.append(
            {
                "model": result.label,
                "accuracy": accuracy.value,
                "ours": interval(accuracy.value, *accuracy.interval()) + mean,
                "note": collapsed(result),
                "claims": [{"id": n, "thesis": thesis[n], "verdicts": by_verdict(verdicts, n)} for n in names],
            }
        )
    return found
