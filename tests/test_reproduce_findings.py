"""What finished cells say: the rule for the verdict, the tables, and the section of the document."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import claims
import pytest

from rolecraft.errors import DataError
from rolecraft.reproduce import document, findings
from rolecraft.scores import Paired

LOW, HIGH = "0" * 9 + "1", "1" * 9 + "0"


def find(tmp_path, outcomes, /, **changes):
    return findings.find(claims.make(tmp_path, **changes), claims.table(outcomes), {})


@pytest.mark.parametrize(
    ("small", "large", "verdict"),
    [
        ([LOW, LOW], [HIGH, HIGH], "reproduced"),
        ([HIGH, HIGH], [LOW, LOW], "opposite"),
        ([LOW, LOW], [LOW, LOW], "not at this scale"),
        ([LOW, LOW], ["0011000001", LOW], "not at this scale"),  # too little for p < 0.05
        (["0" * 10, HIGH], ["1" * 10, "1" * 8 + "00"], "not at this scale"),  # significant, but the seeds disagree
        ([LOW, LOW], [HIGH], "incomplete"),
        ([LOW, LOW], [], "incomplete"),
    ],
)
def test_the_verdict_asks_for_significance_and_for_every_seed(tmp_path, small, large, verdict):
    assert find(tmp_path, {"small": small, "large": large}).verdict == verdict


def three(tmp_path, middle):
    both = [{"better": "large", "than": arm, "decides": "test"} for arm in ("small", "middle")]
    arms = {"small": {}, "middle": {}, "large": {}}
    table = {"small": [LOW, LOW], "middle": [middle, middle], "large": [HIGH, HIGH]}
    return find(tmp_path, table, arms=arms, comparisons=both).verdict


def test_every_deciding_comparison_must_hold(tmp_path):
    assert three(tmp_path, LOW) == "reproduced"
    assert three(tmp_path, HIGH) == "not at this scale"


def test_a_comparison_pools_the_tasks_of_the_seeds_that_both_arms_have(tmp_path):
    (one,) = find(tmp_path, {"small": ["1100", "1010"], "large": ["1111", "0110", "1111"]}, seeds=[0, 1, 2]).contrasts
    assert one.seeds == (0, 1)
    assert (one.paired.better, one.paired.worse, one.paired.n) == (3, 1, 8)
    assert one.by_seed == (0.5, 0.0)


def test_cells_that_played_other_tasks_are_not_compared(tmp_path):
    table = claims.table({"small": [LOW, LOW], "large": [HIGH, HIGH]})
    played = replace(table["large"][1].scores["test"], tasks="others")
    table["large"][1] = replace(table["large"][1], scores={"test": played})
    with pytest.raises(DataError, match="different tasks of split 'test'"):
        findings.find(claims.make(tmp_path), table, {})


def test_an_interval_over_tasks_counts_a_task_once_whatever_the_seeds():
    one = findings.scored([claims.result("small", seed, HIGH) for seed in range(4)], "test")
    assert one.tasks.n == 10
    assert one.seeds == (0.9, 0.9)
    assert findings.scored([claims.result("small", 0, HIGH)], "test").seeds is None


PAPER = {
    "paper": {"says": "Table 9", "figures": {"large": {"accuracy": 77.6}}, "also": {"GPT-4": {"accuracy": 85.2}}},
    "measures": ["similarity/reasoner"],
}


def test_the_section_holds_scores_tests_costs_and_the_papers_figures_marked_as_such(tmp_path):
    table = claims.table({"small": [LOW, LOW], "large": [HIGH, HIGH]})
    table["large"][0] = claims.result("large", 0, HIGH, logged={"similarity/reasoner": 0.25})
    found = findings.find(claims.make(tmp_path, **PAPER), table, {"large": {"training.learning_rate": 0.01}})
    text = findings.section(found)
    assert "**Verdict: reproduced** (4 of 4 cells)" in text
    assert "| arm | seeds | test | paper: accuracy |" in text
    assert "| small | 2 | 10.0 (2-40; 10-10) | - |" in text
    assert "| large | 2 | 90.0 (60-98; 90-90) | 77.6 |" in text
    assert "| large - small | test (decides) | +80.0 (+40.0 to +100.0) | 0.00014 | 18 / 2 of 20 |" not in text
    assert "| large - small | test (decides) | +80.0 " in text
    assert "| large | 1,000 | 100 | 20,000 | 30 | 0.25 |" in text
    assert "Table 9. Its other rows: GPT-4 accuracy 85.2." in text
    assert "nano (weights abc)" in text


def test_the_same_findings_are_one_json_object(tmp_path):
    told = findings.to_json(find(tmp_path, {"small": [LOW, LOW], "large": [HIGH, HIGH]}))
    assert (told["verdict"], told["cells"]) == ("reproduced", {"finished": 4, "wanted": 4})
    assert told["arms"]["large"]["scores"]["test"]["tasks"]["score"] == pytest.approx(0.9)
    assert told["comparisons"][0]["paired"]["p"] < 0.05


def test_only_the_claims_own_section_is_rewritten(tmp_path):
    path = tmp_path / "claims.md"
    for name, text in (("a", "first"), ("a-b", "second"), ("a", "third")):
        document.write_section(path, name, text)
    path.write_text(path.read_text() + "\nWritten by hand.\n")
    document.write_section(path, "a-b", "fourth")
    text = path.read_text()
    assert text.startswith("# Claims\n")
    assert text.endswith("\nWritten by hand.\n")
    assert [word in text for word in ("first", "second", "third", "fourth")] == [False, False, True, True]
    assert text.index("third") < text.index("fourth")


def test_reports_that_end_at_once_each_leave_their_section(tmp_path):
    path, names = tmp_path / "claims.md", [f"claim-{number}" for number in range(8)]
    with ThreadPoolExecutor(len(names)) as several:
        list(several.map(lambda name: document.write_section(path, name, f"found by {name}"), names))
    text = path.read_text()
    assert [name for name in names if f"found by {name}\n" not in text] == []
    assert [one.name for one in tmp_path.iterdir()] == ["claims.md"]


def test_a_lost_marker_is_told_and_nothing_is_overwritten(tmp_path):
    path = tmp_path / "claims.md"
    path.write_text("<!-- claim a -->\n\ntext\n")
    with pytest.raises(DataError, match="restore the second marker"):
        document.write_section(path, "a", "new")
    assert path.read_text() == "<!-- claim a -->\n\ntext\n"


def test_why_tasks_failed_stands_in_one_table_by_arm(tmp_path):
    read, cells = claims.make(tmp_path), claims.table({"small": ["0011", "0011"], "large": ["1111", "0111"]})
    for arm, told in (("small", {"wrong tool": 1, "missing step": 1}), ("large", {"wrong tool": 1})):
        for seed, result in cells[arm].items():
            failed = told if arm == "small" or seed else {}
            played = replace(result.scores["test"], failures=failed)
            cells[arm][seed] = replace(result, scores={"test": played})
    (grid,) = [
        one for one in findings.grids(findings.find(read, cells, {})) if one.title.startswith("why tasks failed")
    ]
    rows = [dict(zip(grid.heading, row, strict=True)) for row in grid.rows]
    assert [(row["arm"], row["tasks"], row["failed"], row["wrong tool"], row["missing step"]) for row in rows] == [
        ("small", "8", "50.0", "25.0", "25.0"),
        ("large", "8", "12.5", "12.5", "0.0"),
    ]


def test_each_comparison_names_its_test_where_there_are_several():
    def contrast(test):
        paired = Paired(0.1, (0.0, 0.2), 0.03, better=3, worse=0, n=30, test=test, unpaired=0)
        return findings.Contrast("large", "small", "test", True, (0,), paired, (0.1,))

    mixed = findings.comparisons([contrast("exact McNemar"), contrast("exact sign flips")])
    assert [row[3] for row in mixed.rows] == ["0.03 (exact McNemar)", "0.03 (exact sign flips)"]
    alike = findings.comparisons([contrast("exact McNemar")] * 2)
    assert "p by exact McNemar over tasks" in alike.title
    assert [row[3] for row in alike.rows] == ["0.03", "0.03"]
