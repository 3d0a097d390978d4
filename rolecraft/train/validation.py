"""Watches the loss of rows that are not trained, role by role, and keeps the weights at which each role's was least.

α-UMi holds 2 % of each role's data out (its released code). A role whose parameters are its own stops when its loss
has risen: it is frozen at its best, while the others go on. Where roles share what is trained they stop together. At
the end every role has its best weights, and the last checkpoint holds them. Not covered: validation by playing tasks.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from rolecraft import objectives, store
from rolecraft.train.batches import Batch
from rolecraft.train.rows import Rows
from rolecraft.train.trainer import RoleTrainer

FILE = "validation.jsonl"
_STATE = "validation.json"
_WEIGHTS = "validation.safetensors"
SHARED = "all roles"
"""What roles are called that share what is trained."""

Losses = Mapping[str, tuple[float, float]]
"""The sum of the held-out tokens' losses and their number, by role."""


@dataclass(slots=True)
class _Part:
    """What is trained and judged together: roles, their tensors (views for some), and the best of them so far."""

    roles: tuple[str, ...]
    tensors: Sequence[torch.Tensor]
    best: list[torch.Tensor] = field(default_factory=list)
    loss: float = math.inf
    step: int = 0
    worse: int = 0
    frozen: bool = False

    def see(self, losses: Losses, step: int, patience: int) -> float:
        """Take note of the losses after a step, and return this part's."""
        seen = [losses[role] for role in self.roles if role in losses]
        loss = sum(total for total, _ in seen) / max(1.0, sum(count for _, count in seen))
        if self.frozen or not seen:
            return loss
        if loss < self.loss:
            self.loss, self.step, self.worse = loss, step, 0
            self.best = [tensor.detach().clone() for tensor in self.tensors]
            return loss
        self.worse += 1
        self.frozen = 0 < patience <= self.worse
        return loss

    @torch.no_grad()
    def restore(self) -> None:
        for tensor, best in zip(self.tensors, self.best, strict=False):
            tensor.copy_(best)


class Validation(TrainerCallback):  # type: ignore[misc]
    """Measures every `every` steps; with `patience`, that many measures without a gain stop a role.

    `parts` are the tensors that a role has for itself, none where roles share what is trained. `measure` returns the
    losses. What it knows is saved beside each checkpoint, so that a resumed run ends as one that never stopped.
    """

    def __init__(self, every: int, patience: int, run: Path) -> None:
        self._every, self._patience, self._run = every, patience, run
        self._parts: dict[str, _Part] = {}
        self._measure: Callable[[], Losses] = dict
        self._measured = -1

    def watch(
        self,
        roles: Sequence[str],
        own: Mapping[str, Sequence[torch.Tensor]],
        trained: Sequence[torch.Tensor],
        measure: Callable[[], Losses],
    ) -> None:
        """Begin to watch: `own` tensors of each role, or `trained` ones that they share."""
        self._measure = measure
        if own:
            self._parts = {role: _Part((role,), own[role]) for role in roles}
        else:
            self._parts = {SHARED: _Part(tuple(roles), trained)}

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Measure, hold what is frozen, and at the end, or when all are frozen, put everyone's best back."""
        last = state.global_step >= state.max_steps
        for part in self._parts.values():
            if part.frozen:
                part.restore()
        if state.global_step % self._every == 0 or last:
            self._note(state)
        watched = [part for part in self._parts.values() if part.best]  # a role may have no row that is held out
        if watched and all(part.frozen for part in watched):
            # A resumed run goes on to here and no further.
            state.max_steps, control.should_training_stop, control.should_save = state.global_step, True, True
            control.should_log, last = True, True
        if last:
            self.restore()

    def restore(self) -> None:
        """Put every role's best weights in their place."""
        for part in self._parts.values():
            part.restore()

    def _note(self, state: Any) -> None:
        losses = self._measure()
        told: dict[str, Any] = {"step": state.global_step}
        for name, part in self._parts.items():
            told[f"loss/{name}"] = round(part.see(losses, state.global_step, self._patience), 6)
            if part.frozen:
                part.restore()
        told |= {f"loss/{role}": round(total / count, 6) for role, (total, count) in losses.items() if count}
        told |= {"best": {name: part.step for name, part in self._parts.items()}}
        told |= {"frozen": [name for name, part in self._parts.items() if part.frozen]}
        if not state.is_world_process_zero:
            return
        kept = [one for one in _read(self._run) if one["step"] < state.global_step]
        store.write_jsonl(self._run / FILE, [*kept, told])
        losses_told = ", ".join(f"{key[5:]} {value:.4f}" for key, value in told.items() if key.startswith("loss/"))
        frozen = f"; frozen: {', '.join(told['frozen'])}" if told["frozen"] else ""
        print(f"validation after step {state.global_step}: {losses_told}{frozen}", flush=True)

    # ---- beside a checkpoint

    def save(self, folder: Path) -> None:
        """Write what is known so far into a checkpoint's folder."""
        state = {
            name: {"loss": part.loss, "step": part.step, "worse": part.worse, "frozen": part.frozen}
            for name, part in self._parts.items()
            if part.best
        }
        if state:
            best = {f"{name}/{i}": one.contiguous() for name in state for i, one in enumerate(self._parts[name].best)}
            save_file(best, folder / _WEIGHTS)
        (folder / _STATE).write_text(json.dumps(state) + "\n", encoding="utf-8")

    def load(self, folder: Path) -> None:
        """Take up what a checkpoint's folder knows."""
        state = json.loads((folder / _STATE).read_text(encoding="utf-8"))
        best = load_file(folder / _WEIGHTS) if state else {}
        for name, known in state.items():
            part = self._parts[name]
            part.loss, part.step, part.worse, part.frozen = (known[key] for key in ("loss", "step", "worse", "frozen"))
            part.best = [best[f"{name}/{i}"].to(tensor.device) for i, tensor in enumerate(part.tensors)]


@torch.no_grad()
def measure(trainer: RoleTrainer, rows: Rows, speakers: Sequence[str], batches: Sequence[Batch]) -> Losses:
    """Return the sum of the losses of the rows' tokens that would be trained, and their number, by speaker."""
    trained = trainer.model.training
    trainer.model.eval()
    sums = torch.zeros(len(speakers), 2, device=trainer.args.device)
    for batch in batches:
        inputs = trainer._prepare_inputs(rows[batch])
        with trainer.compute_loss_context_manager():
            losses_N, _, speakers_N, _ = trainer.token_losses(trainer.model, inputs)
        sums += objectives.sums_by_speaker(losses_N, speakers_N, len(speakers))
    trainer.model.train(trained)
    found = zip(speakers, sums.tolist(), strict=True)
    return {name: (total, count) for name, (total, count) in found if count}


def _read(run: Path) -> list[dict[str, Any]]:
    path = run / FILE
    return list(store.read_jsonl(path)) if path.exists() else []
