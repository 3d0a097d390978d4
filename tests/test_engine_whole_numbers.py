"""Products of whole numbers: close to exact ones, the same beside any other rows, and left where sums are cut."""

from __future__ import annotations

import pytest
import torch

from rolecraft.engine import packed, whole_numbers

needs_sums = pytest.mark.skipif(not whole_numbers.exact(), reason="this processor sums products of 8 bits wrongly")


@pytest.fixture(autouse=True)
def tried_anew():
    whole_numbers.exact.cache_clear()
    yield
    whole_numbers.exact.cache_clear()


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@needs_sums
@pytest.mark.parametrize(("rows", "width", "out"), [(1, 96, 40), (7, 576, 130), (70, 33, 5), (130, 16, 4100)])
def test_a_product_is_nearer_than_one_of_bfloat16(rows, width, out):
    x, weights = drawn(rows, width), torch.randint(-127, 128, (out, width), dtype=torch.int8)
    x[0, 0] = 8.0  # a large number takes the fineness of its row's others
    scales = drawn(out).abs()
    right = x.double() @ (weights.double() * scales.double()[:, None]).T
    found = whole_numbers.product(x, weights, scales)
    rounded = x.bfloat16().double() @ (weights.double() * scales.double()[:, None]).T
    assert found.dtype == torch.float32
    assert (found - right).abs().max() < 0.3 * (rounded - right).abs().max()


@needs_sums
@pytest.mark.parametrize("out", [200, 4096])
def test_a_row_is_the_same_to_the_bit_beside_any_others(out):
    weights, scales = torch.randint(-127, 128, (out, 320), dtype=torch.int8), drawn(out).abs()
    x = drawn(90, 320) * 1e3
    together = whole_numbers.product(x, weights, scales)
    for count in (1, 2, 8, 31, 64):
        assert torch.equal(whole_numbers.product(x[:count], weights, scales), together[:count])


@needs_sums
def test_nothing_at_all_and_what_is_no_number():
    weights, scales = torch.ones(3, 8, dtype=torch.int8), torch.ones(3)
    assert torch.equal(whole_numbers.product(torch.zeros(2, 8), weights, scales), torch.zeros(2, 3))
    assert whole_numbers.product(torch.full((1, 8), float("nan")), weights, scales).isnan().all()


@needs_sums
def test_eight_bits_are_multiplied_as_whole_numbers():
    made = packed.to_int8([drawn(64, 128), drawn(32, 128)])
    assert made.whole
    assert made.scales is not None
    assert made.scales.dtype == torch.float32
    x = drawn(5, 128)
    assert torch.equal(made.product(x), whole_numbers.product(x, made.data, made.scales))


def test_where_sums_are_cut_the_operator_of_bfloat16_rows_is_taken(monkeypatch):
    monkeypatch.setattr(torch, "_int_mm", lambda a, b: (a.double() @ b.double()).clamp(-32_768, 32_767).int())
    assert not whole_numbers.exact()
    weight, x = drawn(64, 128), drawn(5, 128)
    made = packed.to_int8([weight])
    assert not made.whole
    assert (made.product(x) - x @ weight.T).abs().max() < 0.5


@pytest.mark.parametrize("fault", [None, RuntimeError("not here")])
def test_a_torch_without_it_is_told_from_one_with_it(monkeypatch, fault):
    if fault is None:
        monkeypatch.delattr(torch, "_int_mm")
    else:

        def refuses(*_):
            raise fault

        monkeypatch.setattr(torch, "_int_mm", refuses)
    assert not whole_numbers.exact()
