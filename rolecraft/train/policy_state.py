"""What a run that learns from play goes on from: the trained weights, the optimizer, the schedule, the dice and counts.

Not covered: which of several processes writes it (`policy_loop`).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import get_scheduler

from rolecraft.model import no_bar
from rolecraft.recipe import TrainingSettings
from rolecraft.train.checkpoints import folders, mark_whole

Accompany = Callable[[Path, Path], None]
"""Writes into the first folder what an adapter needs beside it; the second is where that will be."""
_FILE = "policy.pt"
BEST = "best"
"""The folder of the best checkpoint by the validation tasks, beside the others."""


@dataclass(slots=True)
class Progress:
    """A policy while it is tuned: the step that is done, and what its next one depends on.

    `beside` is trained with it and is no part of what is left: a value head. `history` has what a step told, by name,
    as far back as it is watched; `collapsed` says why the run ends before its last step, '' while it does not.
    """

    model: Any
    optimizer: Any
    scheduler: Any
    step: int = 0
    best: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    beside: torch.nn.Module | None = None
    history: dict[str, list[float]] = field(default_factory=dict)
    collapsed: str = ""

    @property
    def trained(self) -> dict[str, torch.nn.Parameter]:
        """The parameters that are trained, by name."""
        own = {name: one for name, one in self.model.named_parameters() if one.requires_grad}
        more = () if self.beside is None else self.beside.named_parameters()
        return own | {f"beside.{name}": one for name, one in more}

    def count(self, name: str, more: int) -> None:
        """Add to a count that outlives the process."""
        self.counts[name] = self.counts.get(name, 0) + more


def begin(model: Any, training: TrainingSettings, beside: torch.nn.Module | None = None) -> Progress:
    """Return a policy that has learned nothing yet; `beside` it what is trained with it."""
    chosen = [one for one in model.parameters() if one.requires_grad]
    chosen += [] if beside is None else list(beside.parameters())
    optimizer = torch.optim.AdamW(chosen, lr=training.learning_rate, weight_decay=training.weight_decay)
    steps, warm = training.max_steps, training.warmup_steps
    warmup = round(warm * steps) if warm < 1 else int(warm)
    scheduler = get_scheduler(training.lr_scheduler_type, optimizer, warmup, steps)
    return Progress(model, optimizer, scheduler, beside=beside)


def save(progress: Progress, run: Path, accompany: Accompany, facts: Mapping[str, Any], limit: int) -> Path:
    """Write a whole checkpoint and what its adapter needs beside it, then remove those before the last `limit`."""
    folder = run / f"checkpoint-{progress.step}"
    shutil.rmtree(folder, ignore_errors=True)
    write_model(progress.model, folder, accompany)
    torch.save(
        {
            "trained": {name: one.detach() for name, one in progress.trained.items()},
            "optimizer": progress.optimizer.state_dict(),
            "scheduler": progress.scheduler.state_dict(),
            "dice": torch.get_rng_state(),
            "accelerator_dice": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "best": progress.best,
            "counts": progress.counts,
            "history": progress.history,
            "collapsed": progress.collapsed,
        },
        folder / _FILE,
    )
    mark_whole(folder, {**facts, "step": progress.step})
    for old in folders(run)[:-limit]:
        shutil.rmtree(old)
    return folder


def write_model(model: Any, folder: Path, accompany: Accompany, place: Path | None = None) -> None:
    """Write the tuned part and what belongs beside it; `place` is where the folder will be."""
    folder.mkdir(parents=True, exist_ok=True)
    with no_bar():
        model.save_pretrained(str(folder))
    accompany(folder, place or folder)


def restore(progress: Progress, folder: Path, step: int) -> None:
    """Go on from a whole checkpoint, exactly."""
    kept = torch.load(folder / _FILE, weights_only=True, map_location="cpu")
    with torch.no_grad():
        for name, one in progress.trained.items():
            one.copy_(kept["trained"][name])
    progress.optimizer.load_state_dict(kept["optimizer"])
    progress.scheduler.load_state_dict(kept["scheduler"])
    torch.set_rng_state(kept["dice"])
    if torch.cuda.is_available() and kept["accelerator_dice"]:
        torch.cuda.set_rng_state_all(kept["accelerator_dice"])
    progress.step, progress.best, progress.counts = step, kept["best"], kept["counts"]
    progress.history, progress.collapsed = kept["history"], kept["collapsed"]


def is_best(progress: Progress, score: float) -> bool:
    """Return whether no checkpoint before it scored as high, and note it as the best if so; see `keep_best`."""
    if progress.best and score <= progress.best["score"]:
        return False
    progress.best = {"step": float(progress.step), "score": score}
    return True


def keep_best(progress: Progress, run: Path, accompany: Accompany) -> None:
    """Write the policy, which is the best, over the one that was."""
    unfinished = run / f"{BEST}.partial"
    shutil.rmtree(unfinished, ignore_errors=True)
    write_model(progress.model, unfinished, accompany, run / BEST)
    weights = {name: one.detach() for name, one in progress.trained.items()}
    torch.save(weights, unfinished / _FILE)
    (unfinished / "score.json").write_text(json.dumps(progress.best) + "\n", encoding="utf-8")
    shutil.rmtree(run / BEST, ignore_errors=True)
    unfinished.rename(run / BEST)


def take_best(progress: Progress, run: Path) -> None:
    """Give the policy the weights of the best checkpoint, if there is one."""
    if not progress.best:
        return
    kept = torch.load(run / BEST / _FILE, weights_only=True, map_location="cpu")
    with torch.no_grad():
        for name, one in progress.trained.items():
            one.copy_(kept[name])


def gradient_norm(parameters: Sequence[torch.nn.Parameter], most: float) -> float:
    """Cut the gradient to the norm `most` (0: not at all), and return what it was."""
    return float(torch.nn.utils.clip_grad_norm_(parameters, most if most > 0 else float("inf")))
