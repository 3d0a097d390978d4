"""Moves a policy by a step's tries: their tokens' log-probabilities, the objective's loss, and what both tell.

An episode is one line of the loss's matrices, over the tokens that the policy chose, however many rows it has: so the
ratio of an episode is that of the whole of it, and time passes for the value head where the policy acts alone.
A batch's loss is its part of the move's, however that is normalised, so several processes compute some each and add up
their gradients. Not covered: where tries and their advantages come from (`reinforce`, `credit`).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby, pairwise
from typing import TypeVar

import torch
from peft import PeftModel
from torch.nn.utils.rnn import pad_sequence

import rolecraft.train.chances as chances
import rolecraft.train.credit as credit
import rolecraft.train.policy_loop as policy_loop
import rolecraft.train.rollouts as rollouts
import rolecraft.train.value_head as value_head
from rolecraft import adapters, advantages, attention, objectives, policy_losses
from rolecraft.errors import RolecraftError
from rolecraft.model import Loaded
from rolecraft.recipe import Recipe
from rolecraft.reinforcement import ReinforcementSettings
from rolecraft.train.credit import Try
from rolecraft.train.policy_state import Progress
from rolecraft.train.processes import ALONE, Processes
from rolecraft.train.rollouts import Row
from rolecraft.train.tally import Tally
from rolecraft.types import Drawn

_Value = TypeVar("_Value")
_Found = TypeVar("_Found")


@dataclass(frozen=True, slots=True)
class Policy:
    """The policy, and what it is told; not `exact`: the engine that played computes otherwise than the trainer."""

    recipe: Recipe
    loaded: Loaded
    told: ReinforcementSettings
    exact: bool = True
    processes: Processes = ALONE

    @property
    def moves(self) -> int:
        """How often it moves in a step."""
        return self.told.updates * self.told.minibatches

    @property
    def lower(self) -> bool:
        """Whether the trainer computes otherwise than the engine."""
        return bool(self.recipe.training.bf16) or not self.exact

    @property
    def shares(self) -> bool:
        """Whether rows that begin alike are computed from one beginning."""
        model = self.loaded.model
        return self.told.share_prompts and attention.shares(
            model.get_base_model() if isinstance(model, PeftModel) else model
        )


@dataclass(frozen=True, slots=True)
class Sample:
    """An episode's rows, and for each token that the policy chose, in reading order: (T,).

    `played` are the engine's log-probabilities, as the tokens were drawn. `old` are those that the policy moves away
    from, of the same kind: the trainer's own before the first move, so that they depend on nothing but the tokens
    (None: there is one move, and they are its own), and the engine's where the trainer computes in bfloat16, whose
    error the ratio then corrects. `reference` are those of the policy as it began, None where nobody asks; `returns`
    and `values` are PPO's.
    """

    rows: tuple[Row, ...]
    advantages: torch.Tensor
    played: torch.Tensor
    old: torch.Tensor | None = None
    reference: torch.Tensor | None = None
    values: torch.Tensor | None = None
    returns: torch.Tensor | None = None

    @property
    def tokens(self) -> int:
        """How many tokens the policy chose."""
        return len(self.played)


@dataclass(frozen=True, slots=True)
class Seen:
    """What a forward pass says of the chosen tokens of some episodes, (B, T), 0 where `mask` is not.

    `saved` tokens of their rows were not computed, for another row begins with them as well.
    """

    new: torch.Tensor
    mask: torch.Tensor
    entropy: torch.Tensor
    as_told: torch.Tensor
    values: torch.Tensor | None
    saved: int = 0


def learn(
    policy: Policy, progress: Progress, tries: Sequence[Try], rows: Sequence[Row], step: int, tally: Tally
) -> dict[str, float]:
    """Move the policy as often as its recipe says; return the means of what its passes told: entropy, kl and others."""
    told = policy.told
    policy.loaded.model.train()
    samples = _samples(policy, progress, tries, rows, tally)
    watched = Tally()
    losses = [0.0]
    for update in range(told.updates):
        order = list(samples)
        random.Random(f"{policy.recipe.training.seed}/{step}/{update}").shuffle(order)
        for some in _divided(order, told.minibatches):
            losses.append(_move(policy, progress, some, tally, watched, first=len(losses) == 1))
    if len(losses) == 1:  # nothing to learn: the optimizer counts the step all the same
        progress.optimizer.step()
    tally.add("loss", sum(losses) / max(1, len(losses) - 1))
    tally.add("saved", 0.0)  # tokens a step
    return watched.means()


def samples_of(tries: Sequence[Try], rows: Sequence[Row], earned: Sequence[Sequence[float]]) -> list[Sample]:
    """Return the episodes that have rows, each token with the advantage of its reply."""
    by_name = {one.episode.id: found for one, found in zip(tries, earned, strict=True)}
    found = []
    for name, own in groupby(rows, key=lambda row: row.source):
        kept = tuple(own)
        advantage = [by_name[name][step] for row in kept for step in _chosen(row, row.steps)]
        played = [one.logprob for row in kept for one in _drawn(row)]
        found.append(Sample(kept, torch.tensor(advantage), torch.tensor(played)))
    return found


def _samples(
    policy: Policy, progress: Progress, tries: Sequence[Try], rows: Sequence[Row], tally: Tally
) -> list[Sample]:
    """Return what is learned from, with all that is known before the policy moves."""
    told = policy.told
    if told.objective == "rejection":
        kept = {one.episode.id for one in tries if one.score >= told.keep}
        tally.add("kept", float(len(kept)), len(tries))
        right = [row for row in rows if row.source in kept]
        return samples_of(tries, right, [[1.0] * len(one.episode.turns) for one in tries])
    valued = told.objective == "ppo"
    earned = [[0.0] * len(one.episode.turns) for one in tries] if valued else credit.earned(tries, told)
    samples = samples_of(tries, rows, earned)
    if valued or told.kl or policy.lower or policy.moves > 1:
        samples = [
            replace(known, rows=one.rows)
            for some, found in _each(policy, samples, partial(_known, policy, progress))
            for one, known in zip(some, found, strict=True)
        ]
    return _valued(samples, tries, told) if valued else samples


def _each(
    policy: Policy, samples: Sequence[Sample], do: Callable[[Sequence[Sample]], _Found]
) -> Iterator[tuple[Sequence[Sample], _Found]]:
    """Yield each batch of some episodes with what is found of it, by one of the processes."""
    batches = list(_batches(policy, samples))
    costs = [sum(len(row.ids) for one in batch for row in one.rows) for batch in batches]
    return zip(batches, policy.processes.each(batches, costs, do), strict=True)


def _known(policy: Policy, progress: Progress, some: Sequence[Sample]) -> list[Sample]:
    """Return episodes with what the policy, its value head and the policy as it began say of them now.

    They are without their rows: these are known in every process.
    """
    told = policy.told
    asked = told.objective == "ppo" or (policy.moves > 1 and not policy.lower)
    with torch.no_grad():
        now = look(policy, progress, some) if asked else None
        before = look(policy, None, some, began=True) if told.kl else None

    def known(place: int, one: Sample) -> Sample:
        count = one.tokens
        said = None if now is None else now.new[place, :count].cpu()
        return replace(
            one,
            rows=(),
            old=one.played if policy.lower else said,
            reference=None if before is None else before.new[place, :count].cpu(),
            values=None if now is None or now.values is None else now.values[place, :count].cpu(),
        )

    return [known(place, one) for place, one in enumerate(some)]


def _valued(samples: Sequence[Sample], tries: Sequence[Try], told: ReinforcementSettings) -> list[Sample]:
    """Return episodes with generalised advantages over the policy's own tokens, whitened over the step."""
    rewards = {one.episode.id: one.reward for one in tries}
    found = []
    for one in samples:
        assert one.old is not None
        rewards_T = policy_losses.penalised(rewards[one.rows[0].source], one.old, one.reference, told.kl)
        assert one.values is not None
        advantages_T, returns_T = advantages.generalised(rewards_T, one.values, told.values.gamma, told.values.lam)
        found.append(replace(one, advantages=advantages_T, returns=returns_T))
    whole = torch.cat([one.advantages for one in found])[None]
    white = advantages.whitened(whole, torch.ones_like(whole, dtype=torch.bool))[0]
    parts = torch.split(white, [one.tokens for one in found])
    return [replace(one, advantages=part) for one, part in zip(found, parts, strict=True)]


def _move(
    policy: Policy, progress: Progress, some: Sequence[Sample], tally: Tally, watched: Tally, *, first: bool
) -> float:
    """Move the policy once by some episodes; return the loss."""
    loss = 0.0
    for _, (part, noted) in _each(policy, some, partial(_pass, policy, progress, some, first)):
        loss += part
        tally.include(noted)
        watched.include(noted)
    policy.processes.sum_gradients(progress.trained.values())
    if not math.isfinite(loss):
        raise RolecraftError(f"the loss is {loss} at step {progress.step + 1}; lower training.learning_rate")
    policy_loop.move(policy.recipe, progress, tally)
    return loss


def _pass(
    policy: Policy, progress: Progress, some: Sequence[Sample], first: bool, batch: Sequence[Sample]
) -> tuple[float, Tally]:
    """Add the gradient of a batch of some episodes; return its part of their loss, and what it told."""
    seen = look(policy, progress, batch)
    tokens = sum(one.tokens for one in batch) / sum(one.tokens for one in some)
    share = tokens if policy.told.how in ("bnpo", "dapo") else len(batch) / len(some)
    part = _loss(policy.told, batch, seen, tokens / share) * share
    adapter = adapters.find(policy.recipe.adapter.name)
    part = part + adapter.penalty(policy.loaded.model) * len(batch) / len(some)
    part.backward()  # type: ignore[no-untyped-call]
    return float(part.detach()), _noted(policy.told, batch, seen, first=first)


def _loss(told: ReinforcementSettings, some: Sequence[Sample], seen: Seen, valued: float = 1.0) -> torch.Tensor:
    """Return the objective's loss of some episodes; the values' error counts `valued` times: it goes by tokens."""
    if told.objective == "rejection":
        return policy_losses.aggregate(-seen.new, seen.mask, told.how, told.max_turns * told.max_tokens)
    low, high = told.clip
    penalised = bool(told.kl) and told.objective != "ppo"
    loss = policy_losses.grpo(
        seen.new,
        _old(some, seen),
        _matrix([one.advantages for one in some], seen),
        seen.mask,
        clip=policy_losses.Clip(low, high),
        level="sequence" if told.objective == "gspo" else "token",
        how=told.how,
        reference_BT=_matrix([one.reference for one in some], seen) if penalised else None,
        beta=told.kl if penalised else 0.0,
        longest=told.max_turns * told.max_tokens,
    )
    if seen.values is None:
        return loss
    values = _matrix([one.values for one in some], seen)
    returns = _matrix([one.returns for one in some], seen)
    error = policy_losses.value(seen.values, values, returns, seen.mask, told.values.clip)
    return loss + told.values.weight * error * valued


def look(policy: Policy, progress: Progress | None, some: Sequence[Sample], *, began: bool = False) -> Seen:
    """Return what the policy says of the chosen tokens of some episodes, `began`: as it was before it learned.

    Log-probabilities are those at the temperature of play, among the tokens that were let through; `as_told` at the
    temperature at which the engine told its own, which is 1 in a record of what was served.
    """
    loaded, rows = policy.loaded, [row for one in some for row in one.rows]
    batch = _batch(policy, rows)
    head = None if progress is None else progress.beside
    adapter = adapters.find(policy.recipe.adapter.name)
    without = loaded.model.disable_adapter() if began else nullcontext()
    with without, value_head.hidden_states(loaded.model.get_output_embeddings()) as hidden:
        logits_NV, targets_N = policy_loop.logits(loaded, batch, rows, adapter, policy.recipe)
    keep_BT, _, _ = objectives.next_token_targets(batch.ids, batch.weights)
    counts = [one.tokens for one in some]

    def told(values_N: torch.Tensor) -> torch.Tensor:
        return _together(batch.in_order(values_N), counts)

    drawn = batch.as_laid_out([one for row in rows for one in _drawn(row)])
    new_N, entropy_N = chances.of_played(logits_NV, targets_N, drawn, policy.told.temperature)
    heat = drawn[0].temperature
    with torch.no_grad():
        same = heat == policy.told.temperature
        as_told_N = new_N.detach() if same else chances.of_played(logits_NV, targets_N, drawn, heat)[0]
    return Seen(
        told(new_N),
        told(torch.ones_like(new_N)) > 0,
        told(entropy_N),
        told(as_told_N),
        None if head is None else told(value_head.values(head, hidden[-1][keep_BT])),
        0 if batch.layout is None else sum(len(row.ids) for row in rows) - batch.layout.length,
    )


def _batch(policy: Policy, rows: Sequence[Row]) -> rollouts.Batch:
    """Return rows as they are computed: what they begin with once, where the base can and any two begin alike."""
    loaded = policy.loaded
    pad_id = loaded.tokenizer.pad_token_id or 0
    shared = rollouts.laid_out(rows, pad_id, loaded.gate, loaded.device) if policy.shares else None
    return shared or rollouts.batch(rows, pad_id, {}, loaded.device)


def _noted(told: ReinforcementSettings, some: Sequence[Sample], seen: Seen, *, first: bool) -> Tally:
    """Return what a pass told: losses by role are not in it, for advantages have no sign of their own."""
    tally = Tally()
    new, mask = seen.new.detach(), seen.mask
    old, tokens = _old(some, seen), int(mask.sum())
    tally.add("saved", float(seen.saved), 0)
    tally.add("shared", float(seen.saved), sum(len(row.ids) for one in some for row in one.rows))
    if first:
        played = _matrix([one.played for one in some], seen)
        tally.add("drift", float((seen.as_told - played).abs()[mask].sum()), tokens)
    ratios = policy_losses.ratios(new, old, mask)
    start = old if some[0].reference is None else _matrix([one.reference for one in some], seen)
    apart = max(0.0, float(policy_losses.k3(new, start)[mask].sum()))
    tally.add("kl", apart, tokens)
    tally.add("entropy", float(seen.entropy[mask].sum()), tokens)
    if told.objective == "rejection":
        return tally
    level: policy_losses.Level = "sequence" if told.objective == "gspo" else "token"
    judged = policy_losses.ratios(new, old, mask, level).expand_as(new)
    advantage, (low, high) = _matrix([one.advantages for one in some], seen), told.clip
    held = policy_losses.is_clipped(judged, advantage, policy_losses.Clip(low, high))
    tally.add("clipped", float(held[mask].sum()), tokens)
    tally.add("ratio", float(ratios[mask].sum()), tokens)
    tally.add("ratio_apart", float((ratios[mask] - 1).abs().sum()), tokens)
    return tally


def _old(some: Sequence[Sample], seen: Seen) -> torch.Tensor:
    """Return what the policy moves away from: where it is, if nobody noted it before."""
    return seen.new.detach() if some[0].old is None else _matrix([one.old for one in some], seen)


def _matrix(lists: Sequence[torch.Tensor | None], seen: Seen) -> torch.Tensor:
    known = [one for one in lists if one is not None]
    assert len(known) == len(lists)
    return pad_sequence([one.float() for one in known], batch_first=True).to(seen.new.device)


def _together(values_N: torch.Tensor, counts: Sequence[int]) -> torch.Tensor:
    return pad_sequence(list(torch.split(values_N, list(counts))), batch_first=True)


def _batches(policy: Policy, samples: Sequence[Sample]) -> Iterator[Sequence[Sample]]:
    """Yield so many episodes as are computed at once: those that begin alike together, or of a like length."""
    size = policy.processes.batch_size(policy.recipe.training.per_device_train_batch_size, len(samples))
    if policy.shares:
        alike, begun = list[Sample](), groupby(sorted(samples, key=_prompt), _prompt)
        for some in (list(of) for _, of in begun):
            if len(alike) + len(some) > size:
                yield from _cut(alike, size)
                alike = []
            alike += some
    else:
        alike = sorted(samples, key=lambda one: max(len(row.ids) for row in one.rows))
    yield from _cut(alike, size)


def _prompt(one: Sample) -> tuple[int, ...]:
    row = one.rows[0]
    return row.ids[: row.chosen.index(True)]


def _cut(samples: Sequence[Sample], size: int) -> Iterator[Sequence[Sample]]:
    return (samples[first : first + size] for first in range(0, len(samples), size))


def _divided(samples: Sequence[Sample], parts: int) -> Iterator[Sequence[Sample]]:
    """Yield the episodes in so many parts, of nearly the same size; none that is empty."""
    cuts = [round(part * len(samples) / parts) for part in range(parts + 1)]
    return (samples[low:high] for low, high in pairwise(cuts) if high > low)


def _drawn(row: Row) -> Iterator[Drawn]:
    """Yield how the tokens that the policy chose were drawn; raises RolecraftError for one of which nobody told."""
    for one in _chosen(row, row.drawn):
        if one is None:
            raise RolecraftError(f"episode {row.source!r}: an engine did not tell how a token was drawn")
        yield one


def _chosen(row: Row, values: Sequence[_Value]) -> Iterator[_Value]:
    return (value for value, chosen in zip(values, row.chosen, strict=True) if chosen)
