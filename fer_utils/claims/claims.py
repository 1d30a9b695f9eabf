"""The claims audit: statements of the thesis, each judged against a run by its own function.

``claims.yaml`` says what the thesis states; the function registered under a claim's id says how it is judged. A
statement that the run refutes is refuted, whatever else is missing: first come refuted checks, then missing ones,
then undecided ones.
"""

from dataclasses import dataclass, replace
from functools import cache
from math import nan
from pathlib import Path

import pandas as pd
import yaml

from fer_utils.claims import curves, dataset, scores, setup, thesis  # noqa: F401  (they register functions)
from fer_utils.claims.checks import JUDGES, NO, OPEN, UNKNOWN, YES, Check
from fer_utils.claims.evidence import PRETRAINED, READINGS, Evidence, Untestable
from fer_utils.claims.marks import marks
from fer_utils.files import replacing
from fer_utils.findings.statistics import RESAMPLES

REPRODUCED, NOT_REPRODUCED = "reproduced", "not reproduced"
UNDECIDED = "undecided"
FOLLOWED, NOT_FOLLOWED = "followed", "not followed"
CONTRADICTED, CONSISTENT = "contradicted by the thesis itself", "consistent in itself"
NOT_TESTABLE = "not testable here"

#: In the order in which they are counted and shown, each with a sign, so that colour is not alone in telling them
#: apart, its class in ``claims.css``, and its colours of ink and ground (WCAG AA).
SIGNS = {
    REPRODUCED: ("✓", "reproduced", "#0b5d3b", "#e6f4ec"),
    NOT_REPRODUCED: ("✗", "not-reproduced", "#9b1c1c", "#fdecec"),
    UNDECIDED: ("~", "undecided", "#1d4373", "#e8f0fa"),
    FOLLOWED: ("✓", "followed", "#0b5d3b", "#e6f4ec"),
    NOT_FOLLOWED: ("✗", "not-followed", "#9b1c1c", "#fdecec"),
    CONTRADICTED: ("≠", "contradicted", "#5a3d00", "#fff5d9"),
    CONSISTENT: ("=", "consistent", "#0b5d3b", "#e6f4ec"),
    NOT_TESTABLE: ("?", "not-testable", "#3d454d", "#eef0f2"),
}

#: What a verdict of each group means.
GROUPS = {
    "results": "Results: does a rerun give what the thesis reports?",
    "data": "Data: does the dataset hold what the thesis says?",
    "arithmetic": "Arithmetic of the thesis: do its own numbers and words agree?",
    "followed": "Followed: do the notebooks do what the text says?",
    "literature": "Literature: what the thesis cites",
}

#: How the statements were chosen.
SELECTION = (
    "Two readings of the thesis, sentence by sentence, collected what a file can refute: numbers, orders, descriptions "
    "of data, networks and training, and places where the thesis disagrees with itself. Sentences about motives, uses "
    "and general theory are left out."
)

FILE = Path(__file__).with_name("claims.yaml")

#: What a claim whose checks all hold is called, and one of which a check is refuted, where it is not "reproduced".
WORDS = {"followed": (FOLLOWED, NOT_FOLLOWED), "arithmetic": (CONSISTENT, CONTRADICTED)}


@dataclass(frozen=True)
class Claim:
    """One statement of the thesis; see the head of ``claims.yaml``. Entries of ``stated`` are attributes, too."""

    id: str
    where: str
    group: str
    statement: str
    thesis: str
    figures: tuple
    stated: dict
    within: dict
    models: tuple = ()
    network: bool = False  # whether what was built answers it
    see: str = ""

    def __getattr__(self, name):
        if name in (stated := vars(self).get("stated", {})):
            return stated[name]
        raise AttributeError(f"claim {vars(self).get('id')} has no {name!r} in claims.yaml")

    @property
    def rule(self):
        """What is tested, with the tolerances: the first paragraph of the docstring of what judges it."""
        text = " ".join(JUDGES[self.id].__doc__.split("\n\n")[0].split())
        named = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in self.within.items())
        return f"{text} Tolerances: {named}." if named else text

    @property
    def readings(self):
        """Readings of claim S08 under which it is judged; ``("",)`` for claims that do not ask."""
        return tuple(READINGS) if self.trained and set(self.models) & set(PRETRAINED) else ("",)

    @property
    def trained(self):
        """Whether what was trained decides it."""
        return self.group == "results" and not self.network

    def checks(self, evidence):
        """Its checks under the evidence's reading."""
        try:
            found = JUDGES[self.id](evidence, self)
        except Untestable as error:
            found = Check(UNKNOWN, why=error.reason, lacking=error.models)
        return found if isinstance(found, list) else [found]


@cache
def read_file():
    """The claims file, parsed once: that is slow."""
    return yaml.safe_load(FILE.read_text(encoding="utf-8"))


@cache
def load_claims():
    """Read the claims, in the file's order."""
    found = []
    for entry in read_file()["claims"]:
        within = {name: load_tolerances()[name]["value"] for name in entry.get("tolerance", ())}
        lists = {name: tuple(entry.get(name, ())) for name in ("figures", "models")}
        fields = {name: value for name, value in entry.items() if name != "tolerance"}
        found.append(Claim(**{"stated": {}} | fields | lists, within=within))
    return found


def load_tolerances():
    """Tolerances by name, each with ``value`` and ``because``."""
    return read_file()["tolerances"]


def field():
    """What others state and obtain on FER2013, from ``field.yaml``; one row per work, texts, empty where unknown."""
    entries = yaml.safe_load(FILE.with_name("field.yaml").read_text(encoding="utf-8"))
    columns = ["work", "claimed", "obtained", "part", "source", "users"]
    table = pd.DataFrame(entries, columns=columns).fillna("").astype(str)
    table["claimed"] += [f" ({part})" if part else "" for part in table["part"]]
    return table.assign(sources=[f"{a}; {b}" if b else a for a, b in zip(table["source"], table["users"], strict=True)])


def stated(name):
    """The numbers that the thesis gives in a claim, as in ``claims.yaml``."""
    return next(claim.stated for claim in load_claims() if claim.id == name)


# ---- judging


def judge(run, resamples=RESAMPLES):
    """Judge every claim against a run.

    Parameters
    ----------
    run : fer_utils.findings.results.Run
        Whole or in part, of any profile and data.
    resamples : int
        Bootstrap resamples.

    Returns
    -------
    DataFrame
        One row per claim and reading, in the file's order: ``id``, ``reading`` ("" or one of `READINGS`), ``group``,
        ``where``, ``statement``, ``verdict`` (a key of `SIGNS`), ``thesis`` and ``ours`` (text), ``low`` and ``high``
        (95% interval of the first figure in ``ours``, NaN where it has none), ``rule``, ``reason``, ``seen`` (what a
        shortened run saw, and at which share of the training), ``marks``, ``figure`` (ids separated by blanks),
        ``difference`` (how far ours is at most, as a part of the thesis's figure; NaN where there is no such number)
        and ``see`` (another claim's id).
    """
    evidence = Evidence(run, resamples=resamples)
    claims = [(claim, reading) for claim in load_claims() for reading in claim.readings]
    return pd.DataFrame([judge_claim(claim, replace(evidence, reading=reading)) for claim, reading in claims])


def judge_claim(claim, evidence):
    """Judge one claim under the evidence's reading; return a row of what `judge` returns."""
    checks, shown, seen, beside = claim.checks(evidence), evidence, "", ""
    verdict, reason = verdict_of(claim, checks, evidence)
    if verdict == NOT_TESTABLE and claim.group in ("results", "data"):
        shown = replace(evidence, loose=True)
        loose, beside = claim.checks(shown), shown.beside(claim.models)
        seen = seen_of(claim, loose, shown)
        checks = loose if any(part.ours for part in loose) else checks
    ours = "; ".join(dict.fromkeys(part.ours for part in checks if part.ours))
    low, high = next(((part.low, part.high) for part in checks if part.low is not None), (nan, nan))
    shared = ("id", "group", "where", "statement", "thesis", "rule", "see")
    return {name: getattr(claim, name) for name in shared} | {
        "reading": evidence.reading,
        "verdict": verdict,
        "ours": ours + (beside if ours else ""),
        "low": low,
        "high": high,
        "reason": reason,
        "seen": seen,
        "marks": marks(shown, claim.models) if claim.trained else "",
        "figure": " ".join(claim.figures),
        "difference": max((part.difference for part in checks if part.difference is not None), default=nan),
    }


def verdict_of(claim, checks, evidence):
    """Return verdict and reason from the checks: refuted, then not testable, then undecided, then reproduced."""
    outcome = next(o for o in (NO, UNKNOWN, OPEN, YES) if any(part.outcome == o for part in checks))
    deciding = [part for part in checks if part.outcome == outcome]
    whys = list(dict.fromkeys(part.why for part in deciding if part.why and not part.lacking))
    if any(part.lacking for part in deciding) and outcome == UNKNOWN:
        whys.append(evidence.needs([model for model in claim.models if not evidence.used(model)] or claim.models))
    elif outcome == NO:
        whys = list(dict.fromkeys(part.why for part in deciding))
    elif outcome == YES and claim.group != "arithmetic":
        whys = [f"all {len(checks)} checks hold" if len(checks) > 1 else "the check holds"]
    good, bad = WORDS.get(claim.group, (REPRODUCED, NOT_REPRODUCED))
    return {NO: bad, UNKNOWN: NOT_TESTABLE, OPEN: UNDECIDED, YES: good}[outcome], "; ".join(whys)


def seen_of(claim, checks, evidence):
    """Say what a shortened run saw of a claim, at which share of the training; never a verdict."""
    share, outcomes = evidence.shares(claim.models), {part.outcome for part in checks}
    if not share or outcomes == {UNKNOWN}:
        return ""
    agrees = "disagrees" if NO in outcomes else "cannot be told" if outcomes & {OPEN, UNKNOWN} else "agrees"
    return f"at {share} the direction {agrees}"


# ---- what is made of the verdicts


def tally(verdicts):
    """Count the rows of each verdict that has any, in the order of `SIGNS`."""
    return {verdict: n for verdict in SIGNS if (n := int((verdicts["verdict"] == verdict).sum()))}


def write_csv(verdicts, folder):
    """Write ``claims.csv`` into the run's folder; return its path."""
    path = Path(folder) / "claims.csv"
    columns = ["id", "reading", "group", "verdict", "thesis_value", "ours", "low", "high", "rule", "reason", "seen"]
    with replacing(path) as temporary:
        verdicts.rename(columns={"thesis": "thesis_value"})[[*columns, "marks"]].to_csv(
            temporary, index=False, float_format="%.6g", lineterminator="\n"
        )
    return path


def telling(verdicts):
    """Choose the three rows that say most, one of each verdict in turn.

    Of the claims not reproduced the one farthest from the thesis's figure, of those reproduced the nearest (each as a
    part of that figure), of the contradictions the one that touches most other claims.
    """
    ranked = verdicts.assign(touches=verdicts["id"].map(verdicts["see"].value_counts()).fillna(0))
    orders = {
        NOT_REPRODUCED: ranked.sort_values("difference", ascending=False, kind="stable"),
        REPRODUCED: ranked.sort_values("difference", kind="stable"),
        CONTRADICTED: ranked.sort_values(["touches", "difference"], ascending=False, kind="stable"),
    }
    queues = {verdict: list(order.index[order["verdict"] == verdict]) for verdict, order in orders.items()}
    chosen = [queue.pop(0) for queue in queues.values() if queue]
    for verdict in (NOT_REPRODUCED, CONTRADICTED, REPRODUCED):
        chosen += queues[verdict][: 3 - len(chosen)]
    return verdicts.loc[chosen]


def key_findings(verdicts):
    """The findings that explain most, where the verdicts show them.

    Returns
    -------
    list of (str, str)
        Id and sentence.
    """
    found = verdicts.set_index("id")
    sentences = []
    if found.at["F03", "verdict"] == CONSISTENT:
        first, second = stated("F03")["accuracy"]
        sentences.append(("F03", f"{first} and {second} are one confusion matrix: {found.at['F03', 'reason']}."))
    if found.at["D12", "verdict"] == REPRODUCED:
        total = stated("D12")["total"]
        sentences.append(("D12", f"{total:,} is the dataset without disgust: {found.at['D12', 'ours']}."))
    return sentences
