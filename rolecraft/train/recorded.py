"""Learning from what an agent did that somebody else's harness played through our server, by rewards of their own.

The answers are those of one policy (`store.served`), which goes on from where it was: one step moves it by all that was
recorded, as `reinforce` does by what it plays. What was not drawn from that policy is refused by name. Not covered:
which answers make an episode (`episodes`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import rolecraft.train.credit as credit
import rolecraft.train.episodes as recordings
import rolecraft.train.policies as policies
import rolecraft.train.policy_loop as policy_loop
import rolecraft.train.policy_state as policy_state
import rolecraft.train.reinforce as reinforce
import rolecraft.train.rollouts as rollouts
import rolecraft.train.updating as updating
from rolecraft import bases, stages
from rolecraft.errors import DataError, NotFound, RolecraftError, SettingsError
from rolecraft.model import Loaded
from rolecraft.recipe import Recipe, load_recipe
from rolecraft.reinforcement import ReinforcementSettings
from rolecraft.store import Run, served
from rolecraft.team import Team
from rolecraft.train.credit import Try
from rolecraft.train.episodes import Episode
from rolecraft.train.policy_state import Progress
from rolecraft.train.processes import Processes
from rolecraft.train.reinforce import Work
from rolecraft.train.rollouts import Row
from rolecraft.train.tally import Tally
from rolecraft.types import Verdict

_APART = {True: 5e-3, False: 0.5}
"""Nats a token that the trainer may differ from an engine that computes as it does, and from one that does not."""
_OPTIMIZER = "recorded-optimizer.pt"
"""Beside an adapter that a record has moved: what its optimizer knows, for the next record."""
_SHOWN = ("reward", "flat", "loss", "drift", "entropy", "kl", "ratio_apart")


def read(path: Path, flags: Sequence[str], run: Path, rewards: Path, *, base: str | None = None) -> Recipe:
    """Return the recipe by which a record is learned from: that of the file, or of the last of its stages.

    The base is the one that answered, unless another name of it is given. Raises NotFound where nothing was recorded,
    SettingsError for a recipe that does not reinforce.
    """
    recipe = stages.load(path, flags)[-1].recipe if stages.are_in(path) else load_recipe(path, flags)
    told, policy = recipe.reinforcement, _policy(run)
    if told is None:
        raise SettingsError(f"{path} has no section reinforcement, by which a record is learned from; take grpo")
    return replace(
        recipe,
        model=replace(recipe.model, base=base or policy.base),
        # one step: what it learns from is not played again
        training=replace(recipe.training, max_steps=1, lr_scheduler_type="constant", warmup_steps=0.0),
        reinforcement=replace(told, recorded=str(run), rewards=str(rewards), validation=0, normalise="sum"),
    )


def check(recipe: Recipe) -> ReinforcementSettings:
    """Return what the recipe tells of reinforcement; raises SettingsError for what a record does not tell."""
    told = reinforce.check(recipe)
    if recipe.training.processes != 1:
        raise SettingsError(
            f"training.processes is {recipe.training.processes}; a record is learned from in one step of one process: "
            "set it to 1"
        )
    needs = {
        "ppo": "a value head that many steps train",
        "gigpo": "the state of the tools, which are their harness's",
    }
    if told.objective in needs:
        raise SettingsError(
            f"reinforcement.objective is {told.objective!r}, which needs {needs[told.objective]}; take grpo, gspo or "
            "rejection for a record"
        )
    answered = _policy(Path(str(told.recorded)))
    if told.kl and answered.adapter:
        raise SettingsError(
            f"reinforcement.kl is {told.kl:g}, which is from the base without an adapter, and {answered.adapter!r} "
            "answered: the policy would be pulled back to before it was tuned; set it to 0"
        )
    return told


def prepare(recipe: Recipe) -> tuple[Loaded, Team, policies.Learn]:
    """Return the policy as it was when it answered, its team, and what lets it learn."""
    told = check(recipe)
    run = Path(str(told.recorded))
    answered = _policy(run)
    policy, players = reinforce.load(recipe)
    _require_same(policy, answered, recipe)

    def learn(
        folder: Path, accompany: policy_state.Accompany, started: policies.Checkpoint | None, processes: Processes
    ) -> Path:
        work = Work(recipe, policy, players, folder, accompany)
        rewards = recordings.rewards(Path(str(told.rewards)))
        found = _rewarded(run, rewards, Path(str(told.rewards)))
        _require_drawn(found, told, players, run)
        progress = _step(work, found, rewards, answered)
        left = policies.leave(work, progress, len(found))
        torch.save(_momentum(progress), left / _OPTIMIZER)
        return left

    return policy, players, learn


def _policy(run: Path) -> served.Policy:
    found = served.policy(run)
    if found is None:
        raise NotFound(f"{str(run)!r} holds no answers; name a folder that `rolecraft serve --record` wrote")
    return found


def _require_same(policy: Loaded, answered: served.Policy, recipe: Recipe) -> None:
    """Give the policy the weights that answered; raises SettingsError for another base, or an adapter that changed."""
    if policy.weights != answered.weights:
        raise SettingsError(
            f"model.base is {recipe.model.base!r} with weights {policy.weights}, and {answered.base!r} with weights "
            f"{answered.weights} answered; learn on that very base (--base)"
        )
    if not answered.adapter:
        return
    adapter = Path(answered.adapter)
    bases.require_adapter(adapter)
    if bases.digest_weights(adapter) != answered.tuned:
        raise SettingsError(
            f"the adapter in {str(adapter)!r} is not the one that answered any more; restore it, or record anew"
        )
    policies.go_on(policy, adapter, recipe)


def _rewarded(run: Path, told: Mapping[str, float], file: Path) -> list[Episode]:
    """Return the episodes that have a reward in `told`, which is from `file`; tells how many have none."""
    found = recordings.episodes(served.answers(run))
    if not found:
        raise DataError(f"{str(run)!r} holds no answers; let an agent play through the server that records there")
    kept = recordings.rewarded(found, told, file, run)
    if len(kept) < len(found):
        print(f"{len(found) - len(kept)} of {len(found)} episodes have no reward in {file}, and are left out")
    return kept


def _require_drawn(found: Sequence[Episode], told: ReinforcementSettings, players: Team, run: Path) -> None:
    """Raise an error for answers that are not the policy's own draws at the recipe's temperature."""
    for why, count in recordings.refusals(found).items():
        if why:
            told_why = f"{count} of {len(found)} episodes cannot be learned from: {why}"
            raise DataError(f"{str(run)!r}: {told_why}; ask for plain sampling of a model that is served here")
    for answer in (answer for one in found for answer in one.answers):
        if answer.temperature != told.temperature:
            remedy = "play at temperature 1" if answer.temperature == 0 else "set it to that, or play again"
            raise SettingsError(
                f"reinforcement.temperature is {told.temperature:g}, and answer {answer.id!r} was drawn at "
                f"{answer.temperature:g}; {remedy}"
            )
        for turn in answer.record.turns:
            if turn.speaker not in players.speakers:
                raise SettingsError(
                    f"answer {answer.id!r} of model {answer.model!r} has a reply of {turn.speaker!r}, and the roles of "
                    f"team.preset {players.name!r} are {', '.join(players.speakers)}; set it to the team that answered"
                )


def _begin(work: Work, answered: served.Policy) -> Progress:
    """Return the policy; an optimizer that has moved it before goes on, so that its first moves are no leaps.

    A fresh AdamW moves each number by the whole learning rate, however little its gradient says.
    """
    progress = policy_state.begin(work.student.model, work.recipe.training)
    kept = Path(answered.adapter) / _OPTIMIZER
    if answered.adapter and kept.is_file():
        state = torch.load(kept, weights_only=True, map_location="cpu")
        order = list(progress.trained)
        if not set(state) <= set(order):
            raise SettingsError(f"{kept} is of another adapter; delete it, and the optimizer begins anew")
        whole = progress.optimizer.state_dict()
        progress.optimizer.load_state_dict({**whole, "state": {order.index(name): one for name, one in state.items()}})
    return progress


def _momentum(progress: Progress) -> dict[str, Any]:
    """Return what the optimizer knows of each number that it moves, by name."""
    order = list(progress.trained)
    return {order[place]: one for place, one in progress.optimizer.state_dict()["state"].items()}


def _step(work: Work, found: Sequence[Episode], rewards: Mapping[str, float], answered: served.Policy) -> Progress:
    """Move the policy by all that was recorded, and log what it told."""
    told, exact = work.told, answered.exact
    tries, rows = _tries(found, rewards), _rows(work, found)
    _require_difference(tries, told)
    policy = updating.Policy(work.recipe, work.student, told, exact)
    apart = _drift(policy, tries, rows)
    if not apart <= _APART[exact and not work.recipe.training.bf16]:
        raise RolecraftError(
            f"of what was recorded the policy says {apart:.3f} nats a token otherwise than the engine that wrote it: "
            "it is not the policy that answered; record anew with the version that trains"
        )
    progress, tally = _begin(work, answered), Tally()
    updating.learn(policy, progress, tries, rows, 1, tally)
    progress.step = 1
    policy_loop.count_play(progress, tally, [one.episode for one in tries], rows)
    for one in tries:
        tally.add("reward", one.reward)
    groups = {one.group for one in tries}
    tally.add("flat", float(len(credit.flat(tries))), len(groups))
    means = tally.means()
    Run(work.run).log({"step": 1, **means, "learning_rate": work.recipe.training.learning_rate})
    shown = ", ".join(f"{name} {means[name]:.4f}" for name in _SHOWN if name in means)
    print(f"learned from {len(tries)} episodes of {len(groups)} tasks: {shown}", flush=True)
    return progress


def _tries(found: Sequence[Episode], rewards: Mapping[str, float]) -> list[Try]:
    made = []
    for one, group in zip(found, recordings.groups(found), strict=True):
        reward = rewards[one.name]
        made.append(Try(replace(one.whole, verdict=Verdict(reward)), group, reward))
    return made


def _rows(work: Work, found: Sequence[Episode]) -> list[Row]:
    made = [
        rollouts.joined(
            [answer.record for answer in one.answers], one.name, work.players, work.student.renderer, packs=work.packs
        )
        for one in found
    ]
    most = work.recipe.data.max_length
    if cut := sum(any(len(row.ids) > most for row in rows) for rows in made):
        print(f"{cut} of {len(found)} episodes are longer than data.max_length {most}; raise it, or they teach nothing")
    return policy_loop.fitting(work, made, len(found))


def _require_difference(tries: Sequence[Try], told: ReinforcementSettings) -> None:
    """Raise DataError where nothing tells what to do more, and what less."""
    groups = {one.group for one in tries}
    if told.objective == "rejection":
        if not any(one.score >= told.keep for one in tries):
            raise DataError(f"no episode has a reward of reinforcement.keep {told.keep:g}; nothing is left to imitate")
    elif credit.flat(tries) == groups:
        raise DataError(
            f"in each of {len(groups)} tasks the tries have equal rewards ({len(tries)} episodes), which teaches "
            "nothing; play each task several times (metadata 'task'), at a temperature"
        )


@torch.no_grad()
def _drift(policy: updating.Policy, tries: Sequence[Try], rows: Sequence[Row]) -> float:
    """Return how far the policy is from what the engine said of a first few episodes, in nats a token."""
    size = policy.recipe.training.per_device_train_batch_size
    samples = updating.samples_of(tries, rows, [[0.0] * len(one.episode.turns) for one in tries])[:size]
    policy.loaded.model.train()
    seen = updating.look(policy, None, samples)
    apart = [
        (seen.as_told[place, : one.tokens].cpu() - one.played).abs().clamp(max=20) for place, one in enumerate(samples)
    ]
    return float(torch.cat(apart).mean())
