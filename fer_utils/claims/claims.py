"""The claims audit: statements of the thesis, each judged against a run by its own function.

``claims.yaml`` says what the thesis states; the function registered under a claim's id says how it is judged. A
statement that the run refutes is refuted, whatever else is missing: first come refuted checks, then missing ones,
then undecided ones.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pandas as pd
import yaml

from fer_utils.claims import curves, dataset, networks, scores, setup, thesis  # noqa: F401  (they register functions)
from fer_utils.claims.checks import JUDGES, NO, OPEN, UNKNOWN, YES
from fer_utils.claims.evidence import PRETRAINED, READINGS, Evidence
from fer_utils.claims.marks import collapsed, marks  # noqa: F401  (collapsed is for those who name trainings)
from fer_utils.claims.page import render  # noqa: F401  (part of this module's interface)
from fer_utils.claims.verdicts import (
    CONSISTENT,
    CONTRADICTED,
    FOLLOWED,
    GROUPS,
    NOT_FOLLOWED,
    NOT_REPRODUCED,
    NOT_TESTABLE,
    REPRODUCED,
    SELECTION,  # noqa: F401
    SIGNS,  # noqa: F401
    UNDECIDED,
    tally_table,  # noqa: F401
)
from fer_utils.errors import ConfigError
from fer_utils.files import replacing
from fer_utils.findings.statistics import RESAMPLES

FILE = Path(__file__).with_name("claims.yaml")

#: What a claim whose checks all hold is called, and one of which a check is refuted, where it is not "reproduced".
WORDS = {"followed": (FOLLOWED, NOT_FOLLOWED), "arithmetic": (CONSISTENT, CONTRADICTED)}


@dataclass(frozen=True)
class Claim:
    """One statement of the thesis; see the head of ``claims.yaml`` for the fields."""

    id: str
    where: str
    group: str
    kind: str
    statement: str
    thesis: str
    figures: tuple
    stated: dict
    tolerances: dict
    models: tuple = ()
    see: str = ""

    @property
    def judge(self):
        """The function that judges it."""
        return JUDGES[self.id]

    @property
    def rule(self):
        """What is tested, with the tolerances: the first sentence of the function's docstring."""
        text = " ".join((self.judge.__doc__ or "").split("\n\n")[0].split())
        named = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in self.tolerances.items())
        return f"{text} Tolerances: {named}." if named else text

    @property
    def readings(self):
        """Readings of claim S08 under which it is judged; ``("",)`` for claims that do not ask."""
        trained = self.group == "results" and self.kind != "network" and set(self.models) & set(PRETRAINED)
        return tuple(READINGS) if trained else ("",)


@cache
def read_file(path=FILE):
    """The claims file; parsing it takes a third of a second."""
    return yaml.safe_load(Path(path).read_text(encoding="utf-8"))


@cache
def load_claims(path=FILE):
    """Read the claims, in the file's order.

    Raises
    ------
    ConfigError
        If an id repeats, no function judges it, or a field, a group or a tolerance is unknown.
    """
    content, name = read_file(path), Path(path).name
    known, found = content["tolerances"], []
    for entry in content["claims"]:
        entry = {"stated": {}} | entry
        where = f"{name}: claim {entry.get('id', 'without id')}"
        if entry.get("id") not in JUDGES:
            raise ConfigError(f"{where}: no function judges it; register one with @judges")
        if entry["id"] in {claim.id for claim in found}:
            raise ConfigError(f"{where} occurs more than once; give each claim an id of its own")
        wrong = [tolerance for tolerance in entry.get("tolerance", []) if tolerance not in known]
        if wrong:
            raise ConfigError(f"{where}: unknown tolerance {', '.join(wrong)}; expected one of {', '.join(known)}")
        if entry.get("group") not in GROUPS:
            raise ConfigError(f"{where}: group is {entry.get('group')!r}; expected one of {', '.join(GROUPS)}")
        entry["tolerances"] = {key: known[key]["value"] for key in entry.pop("tolerance", [])}
        entry |= {key: tuple(entry.get(key, ())) for key in ("figures", "models")}
        try:
            found.append(Claim(**entry))
        except TypeError as error:
            raise ConfigError(f"{where}: {error}") from error
    return found


def load_tolerances(path=FILE):
    """Tolerances by name, each with ``value`` and ``because``."""
    return read_file(path)["tolerances"]


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
        ``kind``, ``where``, ``statement``, ``verdict`` (one of `VERDICTS`), ``thesis`` and ``ours`` (text), ``low`` and
        ``high`` (95% interval of the first figure in ``ours``, NaN where it has none), ``rule``, ``reason``, ``seen``
        (what a shortened run saw, and at which share of the training), ``marks``, ``figure`` (ids separated by blanks),
        ``difference`` (how far ours is at most, as a part of the thesis's figure; NaN where there is no such number)
        and ``see`` (another claim's id).
    """
    cache, rows = {}, []
    for claim in load_claims():
        for reading in claim.readings:
            strict = Evidence(run, reading, resamples=resamples, cache=cache)
            rows.append(judge_claim(claim, strict))
    return pd.DataFrame(rows)


def judge_claim(claim, evidence):
    """Judge one claim under the evidence's reading; return a row of what `judge` returns."""
    checks = claim.judge(evidence, claim)
    verdict, reason = verdict_of(claim, checks, evidence)
    shown, seen = evidence, ""
    if verdict == NOT_TESTABLE and claim.group in ("results", "data"):
        shown = Evidence(evidence.run, evidence.reading, loose=True, resamples=evidence.resamples, cache=evidence.cache)
        loose = claim.judge(shown, claim)
        seen = seen_of(claim, loose, shown)
        checks = loose if any(part.ours for part in loose) else checks
    ours = "; ".join(dict.fromkeys(part.ours for part in checks if part.ours))
    besides = (shown.beside(claim.models) if claim.models else beside_data(shown)) if shown is not evidence else ""
    first = next((part for part in checks if part.low is not None), None)
    differences = [part.difference for part in checks if part.difference is not None]
    return {
        "id": claim.id,
        "reading": evidence.reading,
        "group": claim.group,
        "kind": claim.kind,
        "where": claim.where,
        "statement": claim.statement,
        "verdict": verdict,
        "thesis": claim.thesis,
        "ours": ours + (besides if ours else ""),
        "low": first.low if first else float("nan"),
        "high": first.high if first else float("nan"),
        "rule": claim.rule,
        "reason": reason,
        "seen": seen,
        "marks": marks(shown, claim.models) if claim.group == "results" else "",
        "figure": " ".join(claim.figures),
        "difference": max(differences, default=float("nan")),
        "see": claim.see,
    }


def verdict_of(claim, checks, evidence):
    """Return verdict and reason from the checks: refuted, then not testable, then undecided, then reproduced."""
    by_outcome = {outcome: [part for part in checks if part.outcome == outcome] for outcome in (NO, UNKNOWN, OPEN, YES)}
    good, bad = WORDS.get(claim.group, (REPRODUCED, NOT_REPRODUCED))
    outcome = next(outcome for outcome, parts in by_outcome.items() if parts)
    whys = list(dict.fromkeys(part.why for part in by_outcome[outcome] if part.why))
    if outcome == UNKNOWN:
        whys = list(dict.fromkeys(part.why for part in by_outcome[UNKNOWN] if part.why and not part.lacking))
        if any(part.lacking for part in by_outcome[UNKNOWN]):
            whys.append(evidence.needs([model for model in claim.models if not evidence.used(model)]))
    if outcome == YES and claim.group != "arithmetic":
        whys = [f"all {len(checks)} checks hold" if len(checks) > 1 else "the check holds"]
    verdict = {NO: bad, UNKNOWN: NOT_TESTABLE, OPEN: UNDECIDED, YES: good}[outcome]
    return verdict, "; ".join(whys)


def seen_of(claim, checks, evidence):
    """Say what a shortened run saw of a claim, at which share of the training; never a verdict."""
    share = evidence.shares(claim.models)
    outcomes = {part.outcome for part in checks}
    if not share or outcomes == {UNKNOWN}:
        return ""
    agrees = "disagrees" if NO in outcomes else "cannot be told" if outcomes & {OPEN, UNKNOWN} else "agrees"
    return f"at {share} the direction {agrees}"


def beside_data(evidence):
    """What the data are, in brackets, where they are not the known FER2013."""
    found = evidence.fingerprint
    if not found or found.get("known"):
        return ""
    return " (synthetic data)" if found.get("variant") == "synthetic" else " (data that are not the known FER2013)"


# ---- what is made of the verdicts


def write_csv(verdicts, folder):
    """Write ``claims.csv`` into the run's folder; return its path."""
    path = Path(folder) / "claims.csv"
    columns = "id reading group verdict thesis_value ours low high rule reason seen marks".split()
    with replacing(path) as temporary:
        verdicts.rename(columns={"thesis": "thesis_value"})[columns].to_csv(
            temporary, index=False, float_format="%.6g", lineterminator="\n"
        )
    return path


def telling(verdicts, n=3):
    """Choose the rows that say most, one of each verdict in turn.

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
    chosen = [queue.pop(0) for queue in queues.values() if queue][:n]
    for verdict in (NOT_REPRODUCED, CONTRADICTED, REPRODUCED):
        chosen += queues[verdict][: n - len(chosen)]
    return verdicts.loc[chosen]


def key_findings(verdicts):
    """The findings that explain most, as (id, sentence), where the verdicts show them.

    Returns
    -------
    list of (str, str)
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
