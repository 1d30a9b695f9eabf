"""The claims audit: each checkable statement of the thesis, judged against a run by rules.

``claims.yaml`` names the rules. Verdicts, in order of precedence: contradicted by the thesis itself (both sides
computed from its own numbers); not testable in this run; reproduced, or not.
"""

import html
import inspect
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pandas as pd
import yaml

from fer_utils.claims import rules_curves, rules_scores, rules_setup  # noqa: F401  (they register their rules)
from fer_utils.claims.evidence import TAIL, Evidence
from fer_utils.claims.rules import RULES, Finding, sentence_of, where_words
from fer_utils.errors import ConfigError
from fer_utils.files import replacing
from fer_utils.findings.figures import Displayable

FILE = Path(__file__).with_name("claims.yaml")

CONTRADICTED = "contradicted by the thesis itself"
NOT_TESTABLE = "not testable in this run"
REPRODUCED = "reproduced"
NOT_REPRODUCED = "not reproduced"

#: In the order in which they are counted and shown.
VERDICTS = (REPRODUCED, NOT_REPRODUCED, CONTRADICTED, NOT_TESTABLE)

KINDS = ("dataset", "setup", "value", "ranking", "curve", "auc", "confusion", "literature", "contradiction")
FIELDS = ("id", "where", "kind", "statement", "thesis", "needs", "figures")
NEEDS = ("data", "training", "record", "nothing", "citation")

#: For each verdict a sign, so that colour is not alone in telling them apart, and its class in ``claims.css``.
MARKS = {
    REPRODUCED: ("✓", "reproduced"),
    NOT_REPRODUCED: ("✗", "not-reproduced"),
    CONTRADICTED: ("≠", "contradicted"),
    NOT_TESTABLE: ("?", "not-testable"),
}

#: Chapters of the audit, by the first letter of a claim's id.
CHAPTERS = {
    "D": "The dataset (chapter 3.1 and the beginning of 5)",
    "S": "The setup (chapter 3.2.5 and Table 5.1)",
    "F": "The findings (chapters 5 to 7)",
    "L": "The literature (chapters 2 and 8)",
}


@dataclass(frozen=True)
class Claim:
    """One statement of the thesis and how it is judged; see the head of ``claims.yaml`` for the fields.

    Attributes
    ----------
    id, where, kind, statement, thesis, needs : str
    models : tuple of str
        Models that the rules look at.
    rules : tuple of (str, dict)
        Names of rules with their parameters, tolerances resolved.
    figures : tuple of str
        Ids of figures and tables in the report.
    see : str
        Id of the contradiction that touches this claim, or empty.
    """

    id: str
    where: str
    kind: str
    statement: str
    thesis: str
    needs: str
    models: tuple
    rules: tuple
    figures: tuple
    see: str

    @property
    def sentence(self):
        """The rules applied, in words, with their tolerances."""
        sentences = [sentence_of(name, parameters) for name, parameters in self.rules]
        return " ".join(f"{text[0].upper()}{text[1:]}." for text in sentences)


@cache
def read_file(path):
    """Read the claims file once; parsing it takes a third of a second."""
    return yaml.safe_load(Path(path).read_text(encoding="utf-8"))


def load_tolerances(path=FILE):
    """Return the tolerances by name, each with ``value`` and ``because``, its justification."""
    return read_file(path)["tolerances"]


@cache
def load_claims(path=FILE):
    """Read the claims.

    Parameters
    ----------
    path : path
        A file in the form of ``claims.yaml``.

    Returns
    -------
    list of Claim
        In the file's order.

    Raises
    ------
    ConfigError
        If an id repeats, or a claim has no rule, one that does not exist, an unknown tolerance or a wrong field.
    """
    tolerances = load_tolerances(path)
    claims = [read_claim(entry, tolerances, path) for entry in read_file(path)["claims"]]
    ids = [claim.id for claim in claims]
    repeated = sorted({name for name in ids if ids.count(name) > 1})
    if repeated:
        raise ConfigError(f"{path}: {', '.join(repeated)} occurs more than once; give each claim an id of its own")
    return claims


def read_claim(entry, tolerances, path):
    """Return one entry of the file as a `Claim`; see `load_claims` for what it raises."""
    name = f"{Path(path).name}: claim {entry.get('id', '(without id)')}"
    missing = [key for key in FIELDS if key not in entry]
    if missing:
        raise ConfigError(f"{name}: {', '.join(missing)} missing")
    if not entry.get("rules"):
        raise ConfigError(f"{name}: it has no rule; expected at least one of {', '.join(sorted(RULES))}")
    for key, known in (("kind", KINDS), ("needs", NEEDS)):
        if entry[key] not in known:
            raise ConfigError(f"{name}: {key} is {entry[key]!r}; expected one of {', '.join(known)}")
    models = tuple(entry.get("models", ()))
    rules = tuple(read_rule(dict(rule), models, tolerances, name) for rule in entry["rules"])
    return Claim(
        models=models,
        rules=rules,
        figures=tuple(entry["figures"]),
        see=entry.get("see", ""),
        **{key: entry[key] for key in ("id", "where", "kind", "statement", "thesis", "needs")},
    )


def read_rule(parameters, models, tolerances, claim):
    """Return a rule's name and parameters, with tolerances as numbers and the claim's first model filled in."""
    name = parameters.pop("rule", None)
    if name not in RULES:
        raise ConfigError(f"{claim}: there is no rule {name!r}; expected one of {', '.join(sorted(RULES))}")
    for key in ("tolerance", "within"):
        if key in parameters:
            if parameters[key] not in tolerances:
                raise ConfigError(
                    f"{claim}: there is no tolerance {parameters[key]!r}; expected one of {', '.join(tolerances)}"
                )
            parameters[key] = tolerances[parameters[key]]["value"]
    if RULES[name].single:
        if not models:
            raise ConfigError(f"{claim}: rule {name} is about a model; name it under models")
        parameters.setdefault("model", models[0])
    given = {"evidence", "claim"} | set(parameters)
    wanted = inspect.signature(RULES[name].judge).parameters
    lacking = [key for key, p in wanted.items() if p.default is p.empty and key not in given]
    unknown = sorted(set(parameters) - set(wanted))
    if lacking or unknown:
        raise ConfigError(
            f"{claim}: rule {name} lacks {', '.join(lacking) or 'nothing'} and does not know "
            f"{', '.join(unknown) or 'nothing of what it was given'}; it takes {', '.join(wanted)}"
        )
    return name, parameters


# ---- judging


def judge(run):
    """Judge every claim against a run.

    Parameters
    ----------
    run : fer_utils.findings.results.Run
        Whole or in part, of any profile and data.

    Returns
    -------
    DataFrame
        One row a claim, in the file's order: ``id``, ``where``, ``kind``, ``statement``, ``verdict`` (one of
        `VERDICTS`), ``thesis`` and ``ours`` (text), ``low`` and ``high`` (95% interval of the first figure in
        ``ours``, NaN where it has none), ``rule`` (in words), ``reason``, ``figure`` (ids in the report,
        separated by blanks), ``difference`` (how far our figures are from the thesis's at most, as a part of
        those; for a contradiction how far its sides are apart; NaN where there is no such number), ``see``
        (another claim's id).
    """
    evidence = Evidence(run)
    return pd.DataFrame([judge_claim(claim, evidence) for claim in load_claims()])


def judge_claim(claim, evidence):
    """Judge one claim; return a row of what `judge` returns."""
    findings = [apply(name, parameters, claim, evidence) for name, parameters in claim.rules]
    verdict, reason = verdict_of(claim, findings, obstacles(claim, evidence))
    ours = "; ".join(dict.fromkeys(finding.ours for finding in findings if finding.ours))
    if ours and claim.needs == "training":
        ours += evidence.beside(claim.models)
    if ours and claim.needs == "data":
        ours += evidence.beside_data()
    differences = [finding.difference for finding in findings if finding.difference is not None]
    return {
        "id": claim.id,
        "where": claim.where,
        "kind": claim.kind,
        "statement": claim.statement,
        "verdict": verdict,
        "thesis": claim.thesis,
        "ours": ours,
        "low": float("nan") if findings[0].low is None else findings[0].low,
        "high": float("nan") if findings[0].high is None else findings[0].high,
        "rule": claim.sentence,
        "reason": reason,
        "figure": " ".join(claim.figures),
        "difference": max(differences, default=float("nan")),
        "see": claim.see,
    }


def apply(name, parameters, claim, evidence):
    """Apply one rule; one about a model that was not run, or about a curve too short to settle, finds nothing."""
    rule = RULES[name]
    if rule.single and not evidence.results(parameters["model"]):
        return Finding(None)
    extra = {"claim": claim} if "claim" in inspect.signature(rule.judge).parameters else {}
    if "curve" in parameters and evidence.too_short(claim.models if extra else [parameters["model"]]):
        return Finding(None, note=f"a curve of fewer than {TAIL} epochs does not settle")
    return rule.judge(evidence, **extra, **parameters)


def obstacles(claim, evidence):
    """Say why a claim cannot be tested in this run, whatever its figures; empty if it can."""
    if claim.needs == "training":
        return evidence.obstacles(claim.models)
    if claim.needs == "record":
        return evidence.obstacles([m for m in claim.models if evidence.absence(m)])
    if claim.needs == "data":
        return evidence.data_obstacles()
    return []


def verdict_of(claim, findings, found_obstacles):
    """Return verdict and reason from what the rules found.

    Parameters
    ----------
    claim : Claim
    findings : list of Finding
        One a rule.
    found_obstacles : list of str
        Why the claim cannot be tested in this run.

    Returns
    -------
    verdict, reason : str
    """
    if claim.kind == "contradiction":
        excluded = any(finding.holds for finding in findings)
        reason = "; ".join(finding.note for finding in findings)
        if excluded:
            return CONTRADICTED, reason
        return NOT_TESTABLE, f"the sides do not exclude each other, so there is nothing to test: {reason}"
    unknown = [finding.note for finding in findings if finding.holds is None and finding.note]
    if found_obstacles:
        return NOT_TESTABLE, "; ".join(found_obstacles)
    if any(finding.holds is None for finding in findings):
        return NOT_TESTABLE, "; ".join(dict.fromkeys(unknown)) or "the run left nothing to apply the rule to"
    failed = [finding.note for finding in findings if not finding.holds]
    if failed:
        return NOT_REPRODUCED, "; ".join(dict.fromkeys(failed))
    return REPRODUCED, "the rule holds" if len(findings) == 1 else f"all {len(findings)} rules hold"


def tally(claims):
    """Count the verdicts.

    Parameters
    ----------
    claims : DataFrame
        As `judge` returns it.

    Returns
    -------
    dict of str to int
        Every verdict, those that nobody got too.
    """
    return {verdict: int((claims["verdict"] == verdict).sum()) for verdict in VERDICTS}


def write_csv(claims, folder):
    """Write ``claims.csv``.

    Parameters
    ----------
    claims : DataFrame
        As `judge` returns it.
    folder : path
        The run's folder.

    Returns
    -------
    Path
        The file: ``id``, ``verdict``, ``thesis_value``, ``ours``, ``low``, ``high``, ``rule``, ``reason``.
    """
    path = Path(folder) / "claims.csv"
    table = claims.rename(columns={"thesis": "thesis_value"})
    with replacing(path) as temporary:
        table[["id", "verdict", "thesis_value", "ours", "low", "high", "rule", "reason"]].to_csv(
            temporary, index=False, float_format="%.6g", lineterminator="\n"
        )
    return path


# ---- showing

#: Also part of the report's own style sheet, where the ids have their part's name in front.
CSS = Path(__file__).with_name("claims.css")


def render(claims):
    """Show the audit: a table a chapter, every row with the id ``claim-F01`` and so on.

    A choice above the tables, plain HTML and CSS, shows the rows of one verdict alone. On a narrow screen each row
    becomes a card; the tables keep their roles for screen readers.

    Parameters
    ----------
    claims : DataFrame
        As `judge` returns it.

    Returns
    -------
    fer_utils.findings.figures.Displayable
    """
    tables = "".join(
        chapter_html(letter, title, claims[claims["id"].str.startswith(letter)])
        for letter, title in CHAPTERS.items()
        if claims["id"].str.startswith(letter).any()
    )
    intro = (
        "<p>Figures are computed on PublicTest and PrivateTest together, validation curves too, since the thesis "
        "calls the same 20% validation and test; only trainings that scored all of these images are judged. Seeds "
        "are judged by their mean. "
        "Intervals are 95% bootstrap intervals over images (DeLong's for an AUC), averaged over the seeds.</p>"
    )
    style = f"<style>{CSS.read_text(encoding='utf-8')}</style>"
    markup = f'<div class="fer-audit">{style}{intro}{choice_html(tally(claims))}{tables}{tolerance_html()}</div>'
    lines = [f"{row.id}  {row.verdict}: {row.statement}" for row in claims.itertuples()]
    return Displayable(markup, "\n".join([sentence(claims), *lines]))


def sentence(claims):
    """``"63 claims: 2 reproduced, ..."``."""
    return f"{len(claims)} claims: " + ", ".join(f"{n} {verdict}" for verdict, n in tally(claims).items())


def choice_html(counts):
    """Return the radio buttons that choose the verdict to show."""
    options = [("all", f"all ({sum(counts.values())})")]
    options += [(MARKS[verdict][1], f"{MARKS[verdict][0]} {verdict} ({n})") for verdict, n in counts.items()]
    buttons = "".join(
        f'<label for="audit-{name}"><input type="radio" name="audit-verdict" id="audit-{name}"'
        f"{' checked' if name == 'all' else ''}> {html.escape(text)}</label>"
        for name, text in options
    )
    return f"<fieldset><legend>Show claims that are</legend>{buttons}</fieldset>"


def chapter_html(letter, title, claims):
    """One chapter's table."""
    head = "".join(
        f'<th scope="col" role="columnheader" class="c{i}">{text}</th>'
        for i, text in enumerate(("Claim", "Verdict", "Thesis", "Ours", "Rule and reason"), start=1)
    )
    rows = "".join(row_html(row) for row in claims.itertuples())
    return (
        f'<table role="table" id="claims-{letter.lower()}"><caption>{html.escape(title)}: '
        f"{html.escape(sentence(claims))}</caption>"
        f'<thead role="rowgroup"><tr role="row">{head}</tr></thead><tbody role="rowgroup">{rows}</tbody></table>'
    )


def row_html(row):
    """One claim's row."""
    mark, name = MARKS[row.verdict]
    links = ", ".join(link(anchor, figure_words(anchor)) for anchor in row.figure.split())
    see = f"<p>See also {link(f'claim-{row.see}', row.see)}.</p>" if row.see else ""
    shown = f"<p>Shown in {links}.</p>" if links else ""
    return (
        f'<tr role="row" id="claim-{html.escape(row.id)}" data-verdict="{name}">'
        f'<th scope="row" role="rowheader"><b class="id">{html.escape(row.id)}</b> '
        f'<span class="soft">{html.escape(row.kind)}; {html.escape(where_words(row.where))}</span><br>'
        f"{html.escape(row.statement)}</th>"
        f'<td role="cell"><span class="verdict {name}"><span aria-hidden="true">{mark} </span>'
        f"{html.escape(row.verdict)}</span></td>"
        f'<td role="cell" data-label="Thesis">{html.escape(row.thesis)}</td>'
        f'<td role="cell" data-label="Ours">{html.escape(row.ours) or "–"}</td>'
        f'<td role="cell"><p><b>Reason:</b> {html.escape(row.reason)}</p>'
        f'<p class="soft"><b>Rule:</b> {html.escape(row.rule)}</p>{shown}{see}</td></tr>'
    )


def link(anchor, text):
    """Return a link within the page."""
    return f'<a href="#{html.escape(anchor)}">{html.escape(text)}</a>'


def figure_words(anchor):
    """``"Fig. 5.1"`` for ``"fig-5-1"``."""
    kind, *numbers = anchor.split("-")
    return f"{'Table' if kind == 'table' else 'Fig.'} {'.'.join(numbers)}"


def tolerance_html():
    """Tolerances with their justification."""
    items = "".join(
        f"<dt><b>{html.escape(name.replace('_', ' '))}</b>: {entry['value']}</dt>"
        f"<dd>{html.escape(entry['because'])}</dd>"
        for name, entry in load_tolerances().items()
    )
    return f"<p><b>Tolerances of the rules, and why</b></p><dl>{items}</dl>"


def stated(claim):
    """Return the numbers that the thesis gives in a claim."""
    row = next(row for row in read_file(FILE)["claims"] if row["id"] == claim)
    first = row["rules"][0]
    names = {"S01": "parameters", "F01": "accuracy", "F29": "percent", "D01": "total", "D02": "counts"}
    if claim == "F25":
        return {"precision": [first["low"], first["high"]], "recall": row["rules"][1]["value"]}
    return {names.get(claim, "value") if key == "value" else key: value for key, value in first.items()}
