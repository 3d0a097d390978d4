"""What `test_train_processes` has several workers learn, in one start: each way of learning from play, and a resume."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch

import rolecraft.train as tuning
from rolecraft.recipe import Recipe, read_recipe
from rolecraft.train import distilling

TASK = {"format": 0.0, "calls": 0.0, "task": 1.0, "efficiency": 0.0}
TRIED = {"tasks": 3, "group": 4, "max_turns": 2, "max_tokens": 8, "reward": TASK}
"""A step on twelve short episodes."""

COLLAPSES = {"window": 1, "kl": 0.0, "entropy": 0.0, "calls": 0.0, "reward": 1e6}
CASES: dict[str, dict[str, Any]] = {
    "ppo": {"reinforcement": {"objective": "ppo", "kl": 0.05, "minibatches": 2, "updates": 2}},
    "grpo": {
        "reinforcement": {"kl": 0.1, "temperature": 0.7, "aggregation": "grpo", "resample": 1},
        "training": {"max_steps": 4},
    },
    "dr_grpo": {"reinforcement": {"aggregation": "dr_grpo", "scale": "none", "validation": 3, "validate_every": 1}},
    "gspo": {"reinforcement": {"objective": "gspo", "per": "role", "scale": "batch", "minibatches": 2}},
    "gigpo": {"reinforcement": {"objective": "gigpo", "per": "turn", "aggregation": "bnpo"}},
    "mor": {"adapter": {"name": "mor", "r": 4, "lora_alpha": 8}},
    "collapsed": {"reinforcement": {"collapse": COLLAPSES, "validation": 2, "validate_every": 1}},
    "distilled": {"on_policy": {"gate": 0.5}},
    "scored": {"on_policy": {"estimate": "sampled"}},
}


def recipe_of(name: str, processes: int, teacher: Path | None = None) -> Recipe:
    """Return a case: a few steps, in batches that are the same in one process as in two."""
    told: dict[str, Any] = {
        "model": {"base": "nano", "renderer": "nano"},
        "team": {"preset": "mor", "instructions": False},
        "data": {
            "benchmark": Path(__file__).with_name("letters.py"),
            "seed": 1,
            "options": {"families": ["hub", "hop"], "mixed": 0.0},
        },
        "adapter": {"name": "lora", "r": 2, "lora_alpha": 4, "lora_dropout": 0.0},
        "training": {
            "max_steps": 2,
            "per_device_train_batch_size": 3,
            "learning_rate": 5e-4,
            "logging_steps": 1,
            "save_steps": 1,
            "save_total_limit": 9,
            "seed": 0,
            "processes": processes,
        },
    }
    case = CASES[name]
    if "on_policy" in case:
        told["on_policy"] = {"teacher": "nano", "rollouts": 6, "max_turns": 2, "max_tokens": 8}
        told["on_policy"] |= {"teacher_adapter": str(teacher)} if teacher else {}
    else:
        told["reinforcement"] = TRIED
    for section, values in case.items():
        told[section] = {**told.get(section, {}), **values}
    return read_recipe(told)


def make_teacher(folder: Path) -> None:
    """Write an adapter of random numbers: a teacher that says other things than the base."""
    loaded, _, _ = distilling.load(recipe_of("distilled", 1))
    torch.manual_seed(5)
    for name, one in loaded.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(one, std=0.6)
    loaded.model.save_pretrained(str(folder))


def learn(folder: str) -> None:
    """Learn each case into its folder, some from the teacher there; the first once more, as after a kill."""
    first, again = Path(folder) / next(iter(CASES)), Path(folder) / "again"
    with tuning.joined() as processes:
        for name in CASES:
            tuning._train(recipe_of(name, 2, Path(folder) / "teacher"), Path(folder) / name, False)
        if processes.is_first:
            forget_the_end(first, again)
        processes.wait()
        tuning._train(recipe_of(first.name, 2), again, True)


def forget_the_end(run: Path, again: Path) -> None:
    """Copy a run as it would be if a kill had come in its second step."""
    shutil.copytree(run, again)
    (again / "checkpoint-2" / "complete.json").unlink()
    (again / "adapter_config.json").unlink()
