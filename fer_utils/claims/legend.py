"""The legend of the audit: verdicts, their order, names and signs, the groups of claims, and the tally."""

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
VERDICTS = tuple(SIGNS)

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


def tally(verdicts):
    """Count the rows of each verdict, those without any included."""
    return {verdict: int((verdicts["verdict"] == verdict).sum()) for verdict in VERDICTS}
