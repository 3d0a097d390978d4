"""The training part of a report: only what was logged, and the routers' load by role, layer and LoRA."""

import json

from rolecraft import adapters
from rolecraft.report import figures
from rolecraft.store import Run


def test_a_run_that_logged_nothing_has_no_figures(tmp_path):
    assert figures.of(Run(tmp_path)) == []


def test_losses_share_one_figure_and_other_metrics_are_folded(tmp_path):
    run = Run(tmp_path)
    for step in (1, 2):
        run.log({"step": step, "loss": 1.0 / step, "loss/executor": 0.5, "tokens_per_second": 9.0})
    losses, others = figures.of(run)
    assert losses.count("<figure>") == 1
    assert "loss/executor" in losses
    assert "<details" in others
    assert "tokens_per_second" in others


def test_the_routers_load_is_a_heat_map_for_each_role(tmp_path):
    loads = {
        "base_model.model.model.layers.3.self_attn.q_proj": {"reasoner": [0.25, 0.75], "executor": [1.0]},
        "base_model.model.model.layers.3.mlp.up_proj": {"reasoner": [0.5, 0.5]},
    }
    (tmp_path / adapters.ROUTER_LOAD).write_text(json.dumps(loads))
    reasoner, executor = figures.of(Run(tmp_path))
    assert reasoner.count("<td style=") == 4
    assert 'title="layer 3, q_proj, LoRA 1: 0.75"' in reasoner
    assert "--v:75%" in reasoner
    assert executor.count("<td style=") == 1
