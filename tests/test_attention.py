"""Attention over blocks of queries equals the fused kernel."""

import pytest
import torch
from transformers import LlamaConfig, Qwen2Config

from rolecraft import attention


@pytest.mark.parametrize(("heads", "length"), [(4, 300), (2, 128), (1, 129), (4, 5)])
def test_blocks_attend_like_the_fused_kernel(heads, length):
    torch.manual_seed(0)
    q = torch.randn(2, 4, length, 8)
    k, v = (torch.randn(2, heads, length, 8) for _ in range(2))
    ours, _ = attention.attend(torch.nn.Identity(), q, k, v, None, scaling=8**-0.5)
    fused = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    torch.testing.assert_close(ours, fused.transpose(1, 2), atol=1e-5, rtol=1e-5)


def test_gradients_are_those_of_the_fused_kernel():
    torch.manual_seed(0)
    inputs = [torch.randn(1, 2, 200, 8, requires_grad=True) for _ in range(3)]
    twins = [x.detach().clone().requires_grad_() for x in inputs]
    attention.attend(torch.nn.Identity(), *inputs, None, scaling=8**-0.5)[0].square().sum().backward()
    torch.nn.functional.scaled_dot_product_attention(*twins, is_causal=True).square().sum().backward()
    for ours, theirs in zip(inputs, twins, strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-4, rtol=1e-4)


class Model:
    def __init__(self, config):
        self.config = config


def test_windows_and_dropout_are_left_to_others():
    assert attention.serves(Model(LlamaConfig()))
    assert attention.serves(Model(Qwen2Config()))
    assert not attention.serves(Model(Qwen2Config(use_sliding_window=True, sliding_window=64)))
    assert not attention.serves(Model(LlamaConfig(attention_dropout=0.1)))
