"""The count of a recipe's parameters, and what its shares are of."""

from __future__ import annotations

import json

from verbs import call


def test_params_are_counted_without_weights(capsys):
    code, out, _ = call(capsys, "params", "--base", "nano", "--recipe", "quickstart", "adapter.r=12", "--json")
    assert code == 0
    assert json.loads(out.splitlines()[-1])["trainable"] == 5 * 12 * (4 * 256 + 3 * (128 + 352))


def test_params_say_what_their_shares_are_of(capsys):
    _, out, _ = call(capsys, "params", "--base", "nano", "--recipe", "quickstart", "adapter.r=12")
    tuned, base = 147_840, 1_136_000
    assert f"{tuned:,} trainable parameters beside the base's {base:,}" in out
    assert f"{tuned / (tuned + base):.2%} of the two together, {tuned / base:.2%} of the base" in out
