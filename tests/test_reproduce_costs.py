"""Costs follow from the cells' files: a table, each also as a multiple of the first arm's, and limits on them."""

from __future__ import annotations

from dataclasses import replace

import claims
import pytest
import yaml

from rolecraft.errors import SettingsError
from rolecraft.reproduce import claim, costs, findings
from rolecraft.reproduce.claim import Limit

LIMITS = [{"arm": "large", "than": "small", "cost": "training_flops", "at_most": 2.0}]


def cell(arm: str, seed: int, flops: float, computed: float = 100.0):
    made = claims.result(arm, seed, "0011")
    cost = {"computed": computed, "completion": 20.0, "model_calls": 3.0, "seconds": 0.4}
    played = replace(made.scores["test"], cost=cost)
    tuning = replace(made.tuning, stored=1500, flops=flops)
    return replace(made, tuning=tuning, scores={"test": played}, seconds_per_task=0.1)


def cells(large: float) -> dict:
    return {arm: {s: cell(arm, s, f) for s in (0, 1)} for arm, f in (("small", 1e12), ("large", large))}


def test_each_cost_is_told_as_a_multiple_of_the_first_arm_s(tmp_path):
    (grid,) = costs.grids(claims.make(tmp_path), cells(2.5e12))
    assert grid.heading == ("arm", *costs.MEASURES.values())
    assert [row[4] for row in grid.rows] == ["1.00e+12 (1.00)", "2.50e+12 (2.50)"]
    assert [row[6] for row in grid.rows] == ["120 (1.00)"] * 2


def test_cells_from_before_costs_were_recorded_have_no_table(tmp_path):
    assert costs.grids(claims.make(tmp_path), claims.table({"small": ["01"], "large": ["11"]})) == []


@pytest.mark.parametrize(("large", "verdict"), [(1.9e12, "reproduced"), (2.1e12, "not at this scale")])
def test_a_limit_decides_the_verdict(tmp_path, large, verdict):
    read = claims.make(tmp_path, limits=LIMITS, comparisons=[])
    found = findings.find(read, cells(large), {})
    assert found.verdict == verdict
    assert f"`large` at most 2 times `small` (found {large / 1e12:.2f})" in findings.section(found)
    assert "each cost is within its limit" in findings.section(found)


def test_a_limit_that_rests_on_a_missing_cell_is_incomplete(tmp_path):
    read = claims.make(tmp_path, limits=LIMITS, comparisons=[])
    held = cells(1e12)
    del held["large"][1]
    assert findings.find(read, held, {}).verdict == "incomplete"


def test_a_claim_like_another_has_its_arms_and_asks_otherwise(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = claims.write(tmp_path)
    told = {"like": str(path), "title": "Cost", "question": "How much?", "source": "nobody", "limits": LIMITS}
    (tmp_path / "cost.yaml").write_text(yaml.safe_dump(told))
    read, other = claim.load(tmp_path / "cost.yaml"), claim.load(path)
    assert read.arms == other.arms
    assert read.settings == other.settings
    assert read.comparisons == ()
    assert read.limits == (Limit("large", "small", "training_flops", 2.0),)


def test_a_limit_on_an_arm_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="a limit names arm 'lage'"):
        claims.make(tmp_path, limits=[{**LIMITS[0], "arm": "lage"}])
