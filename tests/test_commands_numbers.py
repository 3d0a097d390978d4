"""A number that means nothing is refused on the command line, by option and value."""

from __future__ import annotations

import pytest

from rolecraft import cli

RUN = ["run", "question"]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([*RUN, "--temperature", "nan"], "--temperature: 'nan' is not a finite number"),
        ([*RUN, "--temperature", "-0.5"], "--temperature: '-0.5' is below 0"),
        ([*RUN, "--tool-seconds", "inf"], "--tool-seconds: 'inf' is not a finite number"),
        ([*RUN, "--tool-seconds", "0"], "--tool-seconds: '0' is not above 0"),
        ([*RUN, "--max-tokens", "0"], "--max-tokens: '0' is not between 1 and"),
        ([*RUN, "--max-context", "9" * 5000], "--max-context: '99"),
        ([*RUN, "--max-turns", "many"], "--max-turns: 'many' is not a whole number"),
        (["eval", "toolworld", "--limit", "-1"], "--limit: '-1' is not between 1 and"),
        (["serve", "--port", "70000"], "--port: '70000' is not between 0 and 65535"),
        (["serve", "--grace", "NaN"], "--grace: 'NaN' is not a finite number"),
        (["serve", "--waiting", "-1"], "--waiting: '-1' is not between 0 and"),
    ],
)
def test_a_number_that_means_nothing_is_refused(words, reason, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code == 2
    assert reason in capsys.readouterr().err
