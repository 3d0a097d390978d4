"""MoRAgent's balance and orthogonality losses against cases worked out by hand."""

import pytest
import torch
from test_mor import llama, mixture_on, sample, shaken

from rolecraft.adapters import mor
from rolecraft.adapters.mor import _losses
from rolecraft.adapters.mor._mixture import Routing
from rolecraft.adapters.mor._plan import Mixture

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

MIXTURE = Mixture((3, 2), (1, 1), 2)  # two routed and a shared LoRA, one routed and a shared LoRA


def routing(chances, chosen, own) -> Routing:
    """What three lists of tokens say, a LoRA a column."""
    return Routing(torch.tensor(chances).T, torch.tensor(chosen).float().T, torch.tensor(own).sum(0))


def test_balance_is_the_routed_loras_times_the_sum_of_shares_and_chances():
    found = _losses.load(
        routing(
            [[0.9, 0.1, 0, 0, 0], [0.6, 0.4, 0, 0, 0], [0.2, 0.8, 0, 0, 0], [0, 0, 0, 1.0, 0]],
            [[1, 0, 0, 0, 0], [1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 0, 1, 0]],
            [[1, 1, 0, 0, 0]] * 3 + [[0, 0, 0, 1, 0]],
        )
    )
    # f = (2/3, 1/3), P = (1.7/3, 1.3/3): 2 * (2/3 * 1.7/3 + 1/3 * 1.3/3); the other role has one LoRA: 1 * 1 * 1
    assert _losses.balance(found, MIXTURE).tolist() == pytest.approx([2 * (3.4 + 1.3) / 9, 1.0])
    assert found.seen.tolist() == [3, 3, 0, 1, 0]


def test_even_routing_costs_top_k_and_a_role_without_tokens_nothing():
    found = _losses.load(routing([[0.5, 0.5, 0, 0, 0]] * 2, [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0]], [[1, 1, 0, 0, 0]] * 2))
    assert _losses.balance(found, MIXTURE).tolist() == pytest.approx([1.0, 0.0])


def rows(*loras) -> torch.Tensor:
    """LoRAs given as r rows each, one below the other."""
    return torch.tensor([row for lora in loras for row in lora])


A = rows(
    ([1.0, 0, 0, 0], [0, 1, 0, 0]), ([1, 0, 0, 0], [0, 0, 1, 0]), ([0, 0, 0, 2], [0, 0, 0, 0]),
    ([1, 0, 0, 0], [0, 1, 0, 0]), ([3, 0, 0, 0], [0, 0, 0, 1]),
)  # fmt: skip
B = torch.zeros(10, 4)


def test_orthogonality_is_the_squared_overlap_of_every_pair_within_a_role():
    # Role 0: LoRAs 0 and 1 share one direction (1), nothing with LoRA 2. Role 1: 1 * 3 squared.
    assert _losses.orthogonality(A, B, MIXTURE, "subspace", True).tolist() == [1.0, 9.0]
    assert _losses.orthogonality(B, A, MIXTURE, "subspace", True).tolist() == [1.0, 9.0]
    assert _losses.orthogonality(A, B, MIXTURE, "subspace", False).tolist() == [1.0, 0.0]


def test_the_literal_orientation_is_the_norm_of_the_large_product():
    expected = [0.0, 0.0]
    for role, pairs in enumerate([((0, 1), (0, 2), (1, 2)), ((3, 4),)]):
        for i, j in pairs:
            expected[role] += float((A[2 * i : 2 * i + 2].T @ A[2 * j : 2 * j + 2]).square().sum())
    assert _losses.orthogonality(A, B, MIXTURE, "literal", True).tolist() == pytest.approx(expected)


def test_similarity_is_the_largest_cosine_of_two_products():
    generator = torch.Generator().manual_seed(0)
    down, up = torch.randn(10, 6, generator=generator), torch.randn(10, 5, generator=generator)
    products = [(up[2 * i : 2 * i + 2].T @ down[2 * i : 2 * i + 2]).flatten() for i in range(5)]
    cosines = [
        max(abs(float(torch.cosine_similarity(products[i], products[j], dim=0))) for i, j in pairs)
        for pairs in [((0, 1), (0, 2), (1, 2)), ((3, 4),)]
    ]
    assert _losses.similarity(down, up, MIXTURE).tolist() == pytest.approx(cosines)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_penalty_is_both_losses_times_their_coefficients(reduction):
    model = shaken(
        mixture_on(
            llama(), balance_coef=0.5, orthogonality_coef=0.25,
            balance_reduction=reduction, orthogonality_reduction=reduction,
        )
    ).train()  # fmt: skip
    ids, roles = sample()
    model(ids, role_ids=roles)
    wrapped = mor.layers(model).values()
    balances = [_losses.balance(layer.load(), layer.mixtures["default"]).sum() for layer in wrapped]
    overlaps = [
        _losses.orthogonality(
            layer.mor_A["default"], layer.mor_B["default"], layer.mixtures["default"], "subspace", True
        )
        for layer in wrapped
    ]
    count = len(balances) if reduction == "mean" else 1
    expected = 0.5 * sum(balances) / count + 0.25 * sum(overlap.sum() for overlap in overlaps) / count
    torch.testing.assert_close(mor.penalty(model), expected)


def test_without_coefficients_there_is_no_penalty():
    model = shaken(mixture_on(llama(), balance_coef=0.0, orthogonality_coef=0.0)).train()
    ids, roles = sample()
    model(ids, role_ids=roles)
    assert mor.penalty(model) == 0.0


@pytest.mark.parametrize("orientation", ["subspace", "literal"])
def test_under_autocast_the_orthogonality_loss_is_that_of_float32_and_can_be_trained(orientation):
    model = shaken(mixture_on(llama(), balance_coef=0.0, orthogonality_coef=1.0, orientation=orientation)).train()
    ids, roles = sample()
    trained = [p for n, p in model.named_parameters() if "mor_A" in n or "mor_B" in n]
    expected = torch.autograd.grad(mor.penalty(model), trained)
    with torch.autocast("cpu", torch.bfloat16):
        model(ids, role_ids=roles)
        found = mor.penalty(model)
    assert found.item() == mor.penalty(model).item()
    for one, other in zip(torch.autograd.grad(found, trained), expected, strict=True):
        torch.testing.assert_close(one, other)


def test_a_role_without_tokens_in_the_last_batch_has_no_balance_to_log():
    model = shaken(mixture_on(llama())).train()
    ids, roles = sample()
    model(ids, role_ids=roles.clamp(max=1))
    found = mor.measure(model)
    assert {name for name in found if name.startswith("balance")} == {
        f"balance/{role}/{third}" for role in ("reasoner", "executor") for third in ("early", "middle", "late")
    }
    assert "orthogonality/summarizer/late" in found


def test_the_balance_loss_evens_the_load():
    top_k = {"reasoner": 1, "executor": 1, "summarizer": 1}
    model = shaken(mixture_on(llama(), top_k=top_k, balance_coef=1.0, orthogonality_coef=0.0)).train()
    ids, roles = sample(rows=8, nobody=False)
    routers = [p for n, p in model.named_parameters() if "mor_router" in n]
    optimiser = torch.optim.Adam(routers, lr=0.02)
    spreads = []
    for _ in range(40):
        model(ids, role_ids=roles)
        shares = torch.stack([layer.load().share[:4] for layer in mor.layers(model).values()])
        spreads.append(float((shares.amax(1) - shares.amin(1)).mean()))
        mor.penalty(model).backward()
        optimiser.step()
        optimiser.zero_grad()
    assert spreads[-1] < 0.7 * spreads[0], spreads


def test_loads_are_shares_over_all_calls_since_training_began():
    model = shaken(mixture_on(llama())).train()
    ids, roles = sample()
    for _ in range(2):
        model(ids, role_ids=roles)
    found = mor.loads(model)
    assert len(found) == 14
    for shares in found.values():
        assert {role: round(sum(values), 5) for role, values in shares.items()} == {
            "reasoner": 3.0, "executor": 3.0, "summarizer": 2.0,
        }  # fmt: skip


@pytest.mark.parametrize("include_shared", [True, False])
def test_the_gradient_of_orthogonality_is_that_of_its_definition(include_shared):
    matrices = [torch.randn(10, width, dtype=torch.float64, requires_grad=True) for width in (6, 7)]
    weights = torch.tensor([0.3, 2.0], dtype=torch.float64)
    loras = [[0, 1, 2][: 3 if include_shared else 2], [3, 4][: 2 if include_shared else 1]]
    expected = [
        sum((m[2 * i : 2 * i + 2] @ m[2 * j : 2 * j + 2].T).square().sum()
            for m in matrices for i in own for j in own if i < j) + 0.0 * matrices[0].sum()
        for own in loras
    ]  # fmt: skip
    found = _losses.orthogonality(*matrices, MIXTURE, "subspace", include_shared)
    torch.testing.assert_close(found, torch.stack(expected))
    ours = torch.autograd.grad((found * weights).sum(), matrices)
    for one, other in zip(ours, torch.autograd.grad((torch.stack(expected) * weights).sum(), matrices), strict=True):
        torch.testing.assert_close(one, other)
