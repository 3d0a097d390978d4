"""Packed matrices against what they stand for, and each row against itself among others."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from rolecraft.engine import packed

SHAPES = [(1, 32), (17, 64), (96, 160), (320, 576)]


def rows(count: int, width: int) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(3))


def weight(out: int, width: int) -> torch.Tensor:
    return torch.randn(out, width, generator=torch.Generator().manual_seed(4))


def forms(dense: torch.Tensor) -> dict[str, tuple[packed.Matrix, torch.Tensor]]:
    """Return each form with the very matrix that it holds."""
    eight, groups = packed.to_int8([dense]), packed.quantise(dense)
    assert eight.scales is not None
    half = packed.to_bfloat16([dense])
    return {
        "bfloat16": (replace(half, most=packed.most_rows(half)), dense.to(torch.bfloat16).float()),
        "int8": (eight, eight.data.float() * eight.scales.float()[:, None]),
        "int4": (packed.to_int4([groups]), groups.dense()),
    }


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", ["bfloat16", "int8", "int4"])
def test_a_product_is_that_of_the_matrix_it_stands_for(shape, kind):
    matrix, dense = forms(weight(*shape))[kind]
    x = rows(200, shape[1])
    expected = x.to(torch.bfloat16).float() @ dense.t()
    got = matrix.product(x)
    assert got.dtype == torch.float32
    assert matrix.out == shape[0]
    assert float((got - expected).norm() / expected.norm()) < 4e-3  # what comes out is rounded to bfloat16


def test_fewer_bits_are_fewer_bytes_and_a_larger_loss():
    dense = weight(320, 576)
    lost = {kind: float((held - dense).norm() / dense.norm()) for kind, (_, held) in forms(dense).items()}
    assert lost["bfloat16"] < 0.003
    assert lost["int8"] < 0.01
    assert lost["int4"] < 0.075
    sizes = {kind: matrix.nbytes / dense.numel() for kind, (matrix, _) in forms(dense).items()}
    assert sizes["bfloat16"] == 2
    assert sizes["int8"] < 1.01
    assert sizes["int4"] == 0.625


@pytest.mark.parametrize("kind", ["bfloat16", "int8", "int4"])
def test_a_row_is_the_same_to_the_bit_whatever_stands_beside_it(kind):
    matrix, _ = forms(weight(192, 96))[kind]
    x = rows(150, 96)
    together = matrix.product(x)
    for first, end in ((0, 1), (5, 13), (20, 53), (0, 140)):
        assert torch.equal(matrix.product(x[first:end]), together[first:end])


def test_numbers_that_lie_on_a_grid_of_4_bits_are_found_again():
    numbers = torch.randint(0, 16, (64, 96), generator=torch.Generator().manual_seed(0))
    numbers[:, ::32], numbers[:, 1::32] = 0, 15
    dense = (numbers.float() - 8) * 0.125 + 0.5
    assert torch.equal(packed.quantise(dense).dense(), dense)


def test_the_best_logits_are_not_rounded():
    dense = weight(400, 64).to(torch.bfloat16)
    made = packed.Logits(packed.to_bfloat16([dense]), dense)
    x = 3 * rows(5, 64)
    exact = x @ dense.float().t()
    got, best = made.product(x), exact.topk(8).indices
    torch.testing.assert_close(got.gather(1, best), exact.gather(1, best), rtol=1e-5, atol=1e-5)
    assert float((got - exact).abs().max()) < 0.5


def test_rows_of_zeros_are_kept():
    for matrix, _ in forms(torch.zeros(16, 32)).values():
        assert float(matrix.product(rows(3, 32)).abs().max()) < 1e-6
