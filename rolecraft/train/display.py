"""Shows a training as it goes on: a line for each log, which is kept in the run's metrics."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from transformers import TrainerCallback

from rolecraft import store
from rolecraft.store import Run

_SHOWN = ("loss", "preference")


class Display(TrainerCallback):  # type: ignore[misc]
    """Prints a line for each log, and adds it to `metrics.jsonl`; the last step is always logged."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Drop what was logged after the checkpoint that this run goes on from: those steps are done again."""
        logged = self._run.metrics() if state.is_world_process_zero else []
        if logged:
            kept = [entry for entry in logged if entry["step"] <= state.global_step]
            store.write_jsonl(self._run.path / "metrics.jsonl", kept)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step >= state.max_steps:
            control.should_log = True

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, float] | None = None, **_: Any) -> None:
        if not state.is_world_process_zero or not logs or "loss" not in logs:
            return
        self._run.log({"step": state.global_step, **logs})
        shown = ((key.partition("/"), value) for key, value in logs.items())
        told = ", ".join(f"{name} {value:.3f}" for (kind, _, name), value in shown if name and kind in _SHOWN)
        left = timedelta(seconds=round(logs["seconds_left"]))
        print(
            f"step {state.global_step}/{state.max_steps}  epoch {state.epoch:.2f}  loss {logs['loss']:.4f} "
            f"({told})  lr {logs['learning_rate']:.2e}  {logs['tokens_per_second']:,.0f} tokens/s  {left} left",
            flush=True,
        )
