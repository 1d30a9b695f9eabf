"""What the timing of the activations writes is what the audit reads."""

import json

from benchmarks import activations
from fer_utils.claims import claims
from fer_utils.findings.results import read_run


def test_claim_s19_is_judged_by_the_timing(tmp_path):
    assert claims.judge(read_run(tmp_path), 10).set_index("id").verdict["S19"] == claims.NOT_TESTABLE
    activations.main([str(tmp_path)])
    timed = json.loads((tmp_path / "benchmarks" / "activations.json").read_text())
    expected = claims.REPRODUCED if timed["hard_swish"] < timed["relu"] else claims.NOT_REPRODUCED
    row = claims.judge(read_run(tmp_path), 10).set_index("id").loc["S19"]
    assert row["verdict"] == expected and timed["device"] in row["ours"]
