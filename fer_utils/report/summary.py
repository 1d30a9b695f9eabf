"""The report's first page: what was reproduced, in the form that the ML Reproducibility Challenge asks for.

See paperswithcode.com/rc2020 and later. Every number is computed from the run's files, so that the prose cannot be
wrong about it.
"""

import html

from fer_utils.claims.claims import CONTRADICTED, NOT_REPRODUCED, NOT_TESTABLE, REPRODUCED, link, load_claims, tally
from fer_utils.claims.evidence import Evidence, number
from fer_utils.findings.figures import Displayable
from fer_utils.report import facts as overview
from fer_utils.words import STARTS, duration, listed, plural, tested_on

#: How the three most telling claims are chosen; `telling` does it.
TELLING = (
    "chosen by rule: of the claims not reproduced the one farthest from the thesis's figure, of those reproduced "
    "the nearest (each as a part of that figure), of the contradictions the one that touches most other claims "
    "(among equals, whose sides are farthest apart); what a verdict lacks is filled up in the order not reproduced, "
    "contradicted, reproduced"
)


def names_of(results):
    """Labels of trainings, each once, in order."""
    return listed(dict.fromkeys(result.label for result in results))


def length(result):
    """``"ResNet-50: 6 epochs, 3,489 training images"``."""
    record = result.record
    return f"{result.label}: {plural(record['epochs']['run'], 'epoch')}, {record['split']['train']:,} training images"


def telling(claims, n=3):
    """Choose the claims that say most, by the rule in `TELLING`.

    Parameters
    ----------
    claims : DataFrame
        As `fer_utils.claims.claims.judge` returns it.
    n : int
        How many.

    Returns
    -------
    DataFrame
        At most `n` of the rows; none that is not testable.
    """
    ranked = claims.assign(touches=claims["id"].map(claims["see"].value_counts()).fillna(0))
    orders = {
        NOT_REPRODUCED: ranked.sort_values("difference", ascending=False, kind="stable"),
        REPRODUCED: ranked.sort_values("difference", kind="stable"),
        CONTRADICTED: ranked.sort_values(["touches", "difference"], ascending=False, kind="stable"),
    }
    queues = {verdict: list(order.index[order["verdict"] == verdict]) for verdict, order in orders.items()}
    chosen = [queue.pop(0) for queue in queues.values() if queue][:n]
    for verdict in (NOT_REPRODUCED, CONTRADICTED, REPRODUCED):
        chosen += queues[verdict][: n - len(chosen)]
    return claims.loc[chosen]


def scope(run, claims):
    """Say what is tested."""
    stated = {claim.id: claim for claim in load_claims()}
    kinds = claims["kind"].value_counts(sort=False)
    return [
        "The thesis compares four convolutional networks (traditional CNN, ResNet-50, VGG-16, MobileNet-V3) at "
        f"recognising seven emotions in FER2013. Its central claim: {stated['F01'].statement} Chapter 6 says "
        f"{stated['F02'].thesis}.",
        f"All {len(claims)} of its checkable statements are judged: "
        + ", ".join(f"{n} {kind}" for kind, n in kinds.items())
        + ".",
    ]


def methodology(run, claims):
    """Say what was done, on what, for how long."""
    if not run.models:
        return ["The thesis's own numbers were held against each other. No training was found."]
    first = run.models[0].record
    seeds = {m: [r.seed for r in run.by_name(m)] for m in dict.fromkeys(r.model for r in run.models)}
    trained = ", ".join(
        f"{trainings_text(run, m, len(s))}, from {STARTS[run.by_name(m)[0].record['weights']['used']]}"
        for m, s in seeds.items()
    )
    protocols = dict.fromkeys(result.record["protocol"] for result in run.models)
    return [
        f"Trained by the notebooks of this repository, profile {listed(profiles(run))}. {trained}.",
        f"Data: {first['data']['source']}: {first['data']['description']}",
        "; ".join(dict.fromkeys(length(result) for result in run.models)) + ".",
        "Protocol: " + "; ".join(overview.PROTOCOLS[name] for name in protocols) + ". Figures beside claims "
        f"are those on PublicTest and PrivateTest together: {tested_on(run.models)}.",
        f"Computed on {listed(devices(run))} in {duration(seconds_of(run))} of training, with "
        f"TensorFlow {first['versions'].get('tensorflow', '?')} and Keras {first['versions'].get('keras', '?')}.",
    ]


def trainings_text(run, model, n):
    """``"ResNet-50: seeds 0 and 1"``."""
    seeds = [result.seed for result in run.by_name(model)]
    return f"{run.by_name(model)[0].label}: {'seeds' if n > 1 else 'seed'} {listed(seeds)}"


def profiles(run):
    """Profiles of the run's trainings, each once."""
    return list(dict.fromkeys(result.record["profile"] for result in run.models))


def devices(run):
    """Devices of the run's trainings, each once."""
    return list(dict.fromkeys(overview.device_text(result.record) for result in run.models))


def seconds_of(run):
    """Seconds of all trainings together."""
    return sum(result.record["times"]["train_seconds"] or 0 for result in run.models)


def results(run, claims):
    """Say what came out: figures, tally, and the most telling claims as (id, text)."""
    evidence = Evidence(run)
    lines = []
    for model in dict.fromkeys(result.model for result in run.models):
        value, low, high, seeds = evidence.score(model, "accuracy")
        if value is None:
            continue
        n = int(evidence.results(model)[0].mask("test").sum())
        spread = f", {len(seeds)} seeds from {number(min(seeds))} to {number(max(seeds))}" if len(seeds) > 1 else ""
        lines.append(
            f"{evidence.label(model)}: accuracy {number(value)} [{number(low)}, {number(high)}] on {n:,} test "
            f"images{spread}{evidence.beside([model])}"
        )
    chosen = [
        (row.id, f"{row.verdict}: {row.statement} Thesis: {row.thesis}. Ours: {row.ours or 'none'}. {row.reason}")
        for row in telling(claims).itertuples()
    ]
    counts = ", ".join(f"{n} {verdict}" for verdict, n in tally(claims).items())
    return lines, f"Of {len(claims)} claims: {counts}.", chosen


def easy(run, claims):
    """Say what went without trouble in this run."""
    lines = []
    print_ = run.dataset.get("fingerprint", {})
    if print_.get("known"):
        lines.append(f"Recognising the data: {print_['description']}")
    if run.models:
        planned = len(run.plan.get("models", [])) or len(run.models) + len(run.failures)
        lines.append(f"{len(run.models)} of {plural(planned, 'training')} ended without an error.")
    setup = claims[(claims["kind"] == "setup") & (claims["verdict"] == REPRODUCED)]
    if len(setup):
        lines.append(f"Following the thesis's setup where it is stated: {listed(setup['id'])}.")
    return lines or ["Nothing yet: nothing of it has been run."]


def difficult(run, claims):
    """Say what stood in the way."""
    contradictions = claims[claims["verdict"] == CONTRADICTED]
    untested = claims[claims["verdict"] == NOT_TESTABLE]
    literature = int((untested["kind"] == "literature").sum())
    lines = []
    if len(contradictions):
        places = plural(len(contradictions), "place")
        lines.append(f"The thesis contradicts itself in {places} ({listed(contradictions['id'])}).")
    lines.append(
        "It gives no seed, no software versions, no ranges of augmentation, no settings of the learning-rate "
        "schedule and no layer sizes of its traditional CNN; each notebook says what was chosen instead."
    )
    if len(untested) > literature:
        lines.append(
            f"{plural(len(untested) - literature, 'claim')} could not be tested in this run; beside each stands "
            "the reason and, where there is one, the command that makes what is missing."
        )
    trainings = overview.find_trainings(run.folder, run.plan)
    data = overview.describe_data(trainings, run.dataset, run.plan)
    for banner in overview.make_banners(trainings, data, run.plan.get("profile", "")):
        if banner.title in ("MODIFIED DATA", "RANDOM INITIALISATION", "FAILED MODELS"):
            lines.append(f"{banner.title.capitalize()}: {' '.join([banner.text, *banner.points])}")
    return lines


def opening(run, claims):
    """Show the reproducibility summary on one page.

    Parameters
    ----------
    run : fer_utils.findings.results.Run
    claims : DataFrame
        As `fer_utils.claims.claims.judge` returns it.

    Returns
    -------
    fer_utils.findings.figures.Displayable
    """
    figures, counts, chosen = results(run, claims)
    parts = [("Scope of reproducibility", scope(run, claims)), ("Methodology", methodology(run, claims))]
    after = [
        ("What was easy", easy(run, claims)),
        ("What was difficult", difficult(run, claims)),
        ("Communication with the author", ["None is recorded in this run."]),
    ]
    lines = "".join(f"<li>{html.escape(line)}</li>" for line in figures)
    telling_lines = "".join(f"<li>{link(f'claim-{name}', name)}, {html.escape(text)}</li>" for name, text in chosen)
    middle = (
        f"<h3>Results</h3><p><b>{html.escape(counts)}</b></p>"
        + (f"<ul>{lines}</ul>" if lines else "")
        + f"<p>The three most telling ({html.escape(TELLING)}):</p><ol>{telling_lines}</ol>"
    )
    markup = (
        f'<section class="fer-summary" aria-label="Reproducibility summary">{paragraphs(parts)}{middle}'
        f"{paragraphs(after)}</section>"
    )
    text = [f"{title}\n  " + "\n  ".join(body) for title, body in parts]
    text += ["Results\n  " + "\n  ".join([counts, *figures, *(f"{name}, {line}" for name, line in chosen)])]
    text += [f"{title}\n  " + "\n  ".join(body) for title, body in after]
    return Displayable(markup, "\n".join(text))


def paragraphs(parts):
    """Headings with their sentences, as HTML."""
    return "".join(
        f"<h3>{html.escape(title)}</h3>" + "".join(f"<p>{html.escape(line)}</p>" for line in body)
        for title, body in parts
    )
