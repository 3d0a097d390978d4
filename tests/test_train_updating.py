"""Rows that begin alike are computed from one beginning, and teach what they teach one by one."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
import torch
from test_recomputing import held_by_linear_layers
from test_train_reinforce import recipe_of

from rolecraft import adapters
from rolecraft.engine.drawn import pack
from rolecraft.reinforcement import ReinforcementSettings, Values
from rolecraft.train import credit, reinforce, rollouts, sharing, updating, value_head
from rolecraft.train.policy_state import Progress, begin
from rolecraft.train.rollouts import Row
from rolecraft.types import Drawn, Task, Trajectory, Verdict

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")

SPEAKERS = ("reasoner", "executor", "summarizer")


def row(prompt: tuple[int, ...], source: str, seed: int, speaker: str = "reasoner") -> Row:
    """An episode's row after a prompt: a reply, what a tool answers, a reply in which a token was forced."""
    draw = random.Random(seed)
    ids, chosen, steps, speakers = list(prompt), [False] * len(prompt), [-1] * len(prompt), [None] * len(prompt)
    for step, length in ((0, draw.randint(3, 9)), (-1, draw.randint(2, 12)), (1, draw.randint(3, 9))):
        ids += [draw.randrange(20, 300) for _ in range(length)]
        chosen += [step == 0 or (step == 1 and place != 1) for place in range(length)]
        steps += [step] * length
        speakers += [None if step < 0 else speaker] * length
    logprobs = tuple(-1.0 if one else 0.0 for one in chosen)
    drawn = tuple(_drawn(draw) if one else None for one in chosen)
    return Row(tuple(ids), tuple(chosen), logprobs, tuple(steps), tuple(speakers), drawn, len(prompt) - 1, source)


def _drawn(draw: random.Random) -> Drawn:
    """One of all tokens, or of those that a row may have."""
    some = torch.zeros(400, dtype=torch.bool)
    some[20 : draw.randint(300, 400)] = True
    return Drawn(-1.0, 0.8, pack(some)) if draw.random() < 0.5 else Drawn(-1.0, 0.8)


def tools(seed: int, length: int) -> tuple[int, ...]:
    return tuple(random.Random(seed).choices(range(20, 300), k=length))


def episodes() -> list[updating.Sample]:
    """Three tries at a task, two at another with the same tools, one of two rows, and one that is like no other."""
    alike = tools(0, 30)
    rows = [[row(alike + tools(1, 9), f"a{n}", n, SPEAKERS[n])] for n in range(3)]
    rows += [[row(alike + tools(2, 12), f"b{n}", 10 + n)] for n in range(2)]
    rows += [[row(tools(3, 11), "c", 20), row(tools(3, 11) + tools(4, 5), "c", 21, "executor")]]
    rows += [[row(tools(5, 25), "d", 30)]]
    random.Random(0).shuffle(rows)
    found = []
    for place, own in enumerate(rows):
        count = sum(sum(one.chosen) for one in own)
        earned = torch.linspace(-1 - place, 2, count)
        old = torch.full((count,), -6.0)
        found.append(updating.Sample(tuple(own), earned, old, old, old - 0.1, old / 9, old / 8))
    return found


def policy_of(name: str, objective: str) -> tuple[updating.Policy, Progress]:
    """A policy that has left where it began."""
    kind = {"name": "mor", "r": 4, "lora_alpha": 8, "balance_coef": 1.0} if name == "mor" else {}
    told = {"objective": objective, "kl": 0.1, "temperature": 0.8}
    recipe = recipe_of(adapter=kind, reinforcement=told)
    loaded, _ = reinforce.load(recipe)
    loaded.model.double()  # what remains between two ways is then no rounding of float32's
    head = value_head.make(loaded.model.get_output_embeddings().weight.shape[1], loaded.device)
    torch.manual_seed(1)
    with torch.no_grad():
        for one in [*loaded.model.parameters(), *head.parameters()]:
            if one.requires_grad:
                one += 0.05 * torch.randn_like(one)
    progress = begin(loaded.model, recipe.training, head if objective == "ppo" else None)
    return updating.Policy(recipe, loaded, reinforce.check(recipe)), progress


def played(policy: updating.Policy, samples: list[updating.Sample]) -> list[updating.Sample]:
    """The samples as a policy near this one may have played them."""
    with torch.no_grad():
        told = updating.look(policy, None, samples).new
    near = [row_T[: one.tokens] + 0.1 * torch.randn(one.tokens) for row_T, one in zip(told, samples, strict=True)]
    return [replace(one, old=old, reference=old - 0.1) for one, old in zip(samples, near, strict=True)]


def learned(
    policy: updating.Policy, progress: Progress, samples: list[updating.Sample]
) -> tuple[updating.Seen, torch.Tensor, dict[str, torch.Tensor]]:
    """What the policy says of the samples, their loss with the adapter's penalty, and its gradients."""
    progress.optimizer.zero_grad()
    seen = updating.look(policy, progress, samples)
    loss = updating._loss(policy.told, samples, seen)
    loss = loss + adapters.find(policy.recipe.adapter.name).penalty(policy.loaded.model)
    loss.backward()
    return seen, loss.detach(), {name: one.grad for name, one in progress.trained.items() if one.grad is not None}


@pytest.mark.parametrize("objective", ["grpo", "gspo", "ppo"])
@pytest.mark.parametrize("name", ["lora", "mor"])
def test_what_rows_share_is_computed_once_and_changes_no_loss_and_no_gradient(name, objective):
    policy, progress = policy_of(name, objective)
    apart = replace(policy, told=replace(policy.told, share_prompts=False))
    samples = played(apart, episodes())
    one, loss, gradients = learned(policy, progress, samples)
    other, known, expected = learned(apart, progress, samples)
    assert one.saved >= 2 * 39
    assert other.saved == 0
    torch.testing.assert_close(loss, known, rtol=1e-5, atol=1e-6)
    assert torch.equal(one.mask, other.mask)
    for mine, theirs in ((one.new, other.new), (one.entropy, other.entropy)):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)
    if objective == "ppo":
        torch.testing.assert_close(one.values, other.values, rtol=1e-5, atol=1e-5)
    assert gradients.keys() == expected.keys()
    for key, gradient in expected.items():
        assert (gradients[key] - gradient).norm() <= 1e-5 * gradient.norm() + 1e-8, key


def test_what_is_cheap_to_compute_again_is_not_kept():
    policy, progress = policy_of("lora", "grpo")
    held = held_by_linear_layers(policy.loaded.model, "down_proj")
    seen = updating.look(policy, progress, episodes())
    assert seen.new.requires_grad
    assert {there() for there in held} == {None}


def test_the_policy_as_it_began_is_seen_through_shared_prompts_too():
    policy, _ = policy_of("lora", "grpo")
    with torch.no_grad():
        now, before = (updating.look(policy, None, episodes(), began=began) for began in (False, True))
        apart = replace(policy, told=replace(policy.told, share_prompts=False))
        plain = updating.look(apart, None, episodes(), began=True)
    torch.testing.assert_close(before.new, plain.new, rtol=1e-5, atol=1e-5)
    assert (now.new - before.new).abs().max() > 0.01


def test_tries_at_a_task_are_computed_together():
    policy, _ = policy_of("lora", "grpo")
    small = replace(policy.recipe.training, per_device_train_batch_size=3)
    policy = replace(policy, recipe=replace(policy.recipe, training=small))
    batches = [[one.rows[0].source for one in batch] for batch in updating._batches(policy, episodes())]
    assert sorted(name for batch in batches for name in batch) == ["a0", "a1", "a2", "b0", "b1", "c", "d"]
    assert any(sorted(batch) == ["a0", "a1", "a2"] for batch in batches)
    assert any({"b0", "b1"} <= set(batch) for batch in batches)


def test_rows_are_grouped_so_that_the_fewest_tokens_are_computed():
    def best(groups: list[tuple[int, ...]]) -> int:
        shared = [sharing.shared_length([rows[i] for i in one], [weights[i] for i in one]) for one in groups]
        return sum((len(one) - 1) * prefix for one, prefix in zip(groups, shared, strict=True))

    def partitions(left: list[int]) -> list[list[tuple[int, ...]]]:
        if not left:
            return [[]]
        first, rest = left[0], left[1:]
        return [
            [(first, *(rest[i] for i in range(len(rest)) if pick >> i & 1)), *others]
            for pick in range(2 ** len(rest))
            for others in partitions([rest[i] for i in range(len(rest)) if not pick >> i & 1])
        ]

    for seed in range(20):
        draw = random.Random(seed)
        rows = [(torch.tensor([draw.randrange(2) for _ in range(6)]),) for _ in range(5)]
        weights = [torch.tensor([0.0] * 4 + [1.0, 1.0]) for _ in rows]
        found = sharing.alike(rows, weights)
        assert sorted(row for group in found for row in group) == list(range(5))
        assert best(found) == max(best(one) for one in partitions(list(range(5))))


def test_rows_with_nothing_in_common_are_padded_as_ever():
    alone = [row(tools(seed, 9), str(seed), seed) for seed in (1, 2)]
    assert rollouts.laid_out(alone, 0, None) is None


def test_ppo_s_advantages_returns_and_loss_by_hand():
    """Two episodes, of two tokens and of one; between the two a tool spoke, and no time passed.

    Rewards 1 and 0 at the end; of token after token: kl 0.1 times (old - reference) is paid on the way.
    """
    settings = ReinforcementSettings(
        objective="ppo", kl=0.1, values=Values(weight=0.5, clip=0.2, gamma=0.9, lam=0.5), clip_low=0.2, clip_high=0.2
    )
    tool = Row((5, 6, 7, 8, 9), (False, True, False, False, True), source="a")
    alone = Row((5, 6), (False, True), source="b")
    verdicts = {"a": 1.0, "b": 0.0}
    tries = [
        credit.Try(Trajectory(name, Task(name, ()), (), verdict=Verdict(paid)), 0, paid)
        for name, paid in verdicts.items()
    ]
    nothing = torch.zeros(0)
    samples = [
        updating.Sample((tool,), nothing, numbers(-1, -2), numbers(-1, -2), numbers(-1.5, -2.5), numbers(0.2, 0.6)),
        updating.Sample((alone,), nothing, numbers(-1.0), numbers(-1.0), numbers(-0.5), numbers(0.4)),
    ]
    first, second = updating._valued(samples, tries, settings)

    paid = [-0.1 * 0.5, -0.1 * 0.5 + 1.0], [-0.1 * -0.5]
    last = paid[0][1] - 0.6
    begin = paid[0][0] + 0.9 * 0.6 - 0.2 + 0.9 * 0.5 * last
    other = paid[1][0] - 0.4
    plain = [begin, last, other]
    mean = sum(plain) / 3
    deviation = math.sqrt(sum((one - mean) ** 2 for one in plain) / 2)
    white = [(one - mean) / (deviation + 1e-8) for one in plain]
    assert first.returns.tolist() == pytest.approx([begin + 0.2, last + 0.6])
    assert second.returns.tolist() == pytest.approx([other + 0.4])
    assert [*first.advantages.tolist(), *second.advantages.tolist()] == pytest.approx(white, abs=1e-6)

    # now the first token is likelier by half, the second less likely by half, the third as it was
    new = torch.tensor([[-1 + math.log(1.5), -2 + math.log(0.5)], [-1.0, 0.0]])
    mask = torch.tensor([[True, True], [True, False]])
    values = torch.tensor([[0.9, 0.5], [0.4, 9.0]])
    seen = updating.Seen(new, mask, torch.zeros(2, 2), new, values)
    found = updating._loss(settings, [first, second], seen)
    ratios, held = (1.5, 0.5, 1.0), (1.2, 0.8, 1.0)
    surrogate = -sum(min(r * a, h * a) for r, h, a in zip(ratios, held, white, strict=True)) / 3
    near = (0.4, 0.5, 0.4)  # the value at first may move by 0.2 from where it was
    wanted = (begin + 0.2, last + 0.6, other + 0.4)
    told = (0.9, 0.5, 0.4)
    errors = [max((v - w) ** 2, (n - w) ** 2) for v, n, w in zip(told, near, wanted, strict=True)]
    assert found.item() == pytest.approx(surrogate + 0.5 * 0.5 * sum(errors) / 3, abs=1e-6)


@pytest.mark.parametrize("aggregation", ["grpo", "bnpo", "dr_grpo", "dapo"])
def test_how_ppo_s_episodes_are_cut_into_batches_changes_no_gradient(aggregation):
    """The gradient of the value head is compared, whose error is a mean over tokens however the others' is."""
    changes = {"objective": "ppo", "aggregation": aggregation, "values": {"weight": 0.5, "clip": 9.0}}
    recipe = recipe_of(reinforcement=changes, training={"per_device_train_batch_size": 2})
    policy = updating.Policy(recipe, reinforce.load(recipe)[0], reinforce.check(recipe))
    head = value_head.make(policy.loaded.model.get_output_embeddings().weight.shape[1], policy.loaded.device)
    progress = begin(policy.loaded.model, recipe.training, head)
    samples = [
        updating.Sample(
            (one,), torch.zeros(n), torch.zeros(n), torch.zeros(n), None, torch.zeros(n), torch.full((n,), paid)
        )
        for one, paid in ((row((5, 6, 7), "a", 1), 3.0), (row((5, 6, 7), "b", 4), -1.0))
        for n in (sum(one.chosen),)
    ]
    assert samples[0].tokens != samples[1].tokens

    def gradient(*batches: list[updating.Sample]) -> torch.Tensor:
        progress.optimizer.zero_grad()
        for batch in batches:
            updating._pass(policy, progress, samples, False, batch)
        return head.weight.grad.clone()

    torch.testing.assert_close(gradient(samples), gradient(samples[:1], samples[1:]))


def numbers(*values: float) -> torch.Tensor:
    return torch.tensor(values)
