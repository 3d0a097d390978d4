"""A forward pass of Llama-like models over rows of cached tokens, with as few calls as such a model needs.

Matrices lie as they are read fastest, angles are looked up, and of a Mixture of Roles only the roles at hand are read.
Not covered: training, and architectures that `layout` does not read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from rolecraft.engine.kv_cache import KVCache
from rolecraft.engine.layout import Block, Network, Norm


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a call as it would stand alone: its padding, how far it looks back, and its mask (1, 1, Q, depth)."""

    padding: int
    depth: int
    mask: Tensor | None
    causal: bool


@dataclass(frozen=True, slots=True)
class Step:
    """What all layers of one call share: N = B * Q tokens, standing by row or, with several roles, by role.

    `spans` are (role, first, end) of the tokens by role; `order` (N,) brings tokens there and `inverse` back, None
    where both are the same. `mask` (B, 1, Q, depth) is added to the scores; `causal` tells that it is the plain
    triangle. `rows`, if there are any, are what each row's attention is computed by apart from the others.
    """

    batch: int
    width: int
    spans: tuple[tuple[int, int, int], ...]
    order: Tensor | None
    inverse: Tensor | None
    cos: Tensor
    sin: Tensor
    mask: Tensor | None
    causal: bool
    rows: tuple[Row, ...] = ()


def run(
    network: Network,
    cache: KVCache,
    tokens_BQ: Sequence[Sequence[int]],
    roles_BQ: Sequence[Sequence[int]],
    columns_BQ: Sequence[Sequence[int]],
    keep: int,
) -> Tensor:
    """Run new tokens into the prepared `cache` (column -1: padding); return the last logits (B, keep, V)."""
    step = _step(network, roles_BQ, columns_BQ)
    hidden = _arranged(_embedded(network, tokens_BQ), step.order)
    for layer, block in enumerate(network.blocks):
        _attend(hidden, network, block, step, cache, layer)
        _transform(hidden, block, step)
    last = _kept(hidden, step, keep)
    logits = network.head.apply(_normed(last, network.norm), ())
    return logits.view(step.batch, keep, -1).float()


def _embedded(network: Network, tokens_BQ: Sequence[Sequence[int]]) -> Tensor:
    """Return the tokens' vectors (N, width) in the order of the rows."""
    ids_N = torch.tensor(tokens_BQ, device=network.device).view(-1)
    words = len(network.embedding)
    some = network.virtual is not None and max(map(max, tokens_BQ)) >= words
    hidden = functional.embedding(ids_N.clamp(max=words - 1) if some else ids_N, network.embedding)
    if hidden.dtype != network.cos.dtype:
        hidden = hidden.to(network.cos.dtype)
    if not some or network.virtual is None:
        return hidden
    virtual = network.virtual.to(hidden.dtype)[(ids_N - words).clamp(min=0)]
    return torch.where((ids_N >= words).unsqueeze(1), virtual, hidden)


def _step(network: Network, roles_BQ: Sequence[Sequence[int]], columns_BQ: Sequence[Sequence[int]]) -> Step:
    batch, width = len(columns_BQ), len(columns_BQ[0])
    depth = max(columns[-1] for columns in columns_BQ) + 1
    columns = torch.tensor(columns_BQ, device=network.device).clamp_(min=0)
    cos, sin = (table.index_select(0, columns.view(-1)).unsqueeze(1) for table in (network.cos, network.sin))
    spans: tuple[tuple[int, int, int], ...] = ((0, 0, batch * width),) if network.tuned else ()
    order = inverse = None
    if network.mixed:
        spans, order, inverse = _by_role(roles_BQ, columns_BQ, network)
    if network.apart and batch > 1:
        rows = tuple(_row(row, network) for row in columns_BQ)
        return Step(batch, width, spans, order, inverse, cos, sin, None, False, rows)
    causal = batch == 1 and width == depth > 1
    mask = None
    if not causal and any(columns[0] + 1 < depth for columns in columns_BQ):
        hidden = network.places[:depth] > columns[:, None, :, None]
        mask = torch.where(hidden, network.bias[1], network.bias[0])
    return Step(batch, width, spans, order, inverse, cos, sin, mask, causal)


def _row(columns_Q: Sequence[int], network: Network) -> Row:
    padding, depth = sum(column < 0 for column in columns_Q), columns_Q[-1] + 1
    real = columns_Q[padding:]
    if len(real) == depth > 1:
        return Row(padding, depth, None, True)
    mask = None
    if len(real) > 1:
        columns = torch.tensor(real, device=network.device)
        mask = torch.where(network.places[:depth] > columns[:, None], network.bias[1], network.bias[0])[None, None]
    return Row(padding, depth, mask, False)


def _by_role(
    roles_BQ: Sequence[Sequence[int]], columns_BQ: Sequence[Sequence[int]], network: Network
) -> tuple[tuple[tuple[int, int, int], ...], Tensor | None, Tensor | None]:
    """Return the spans of the roles, and the orders to and from them; nobody's tokens come last."""
    real = [
        [role for role, column in zip(*row, strict=True) if column >= 0]
        for row in zip(roles_BQ, columns_BQ, strict=True)
    ]
    present = sorted({role for roles in real for role in roles if role >= 0})
    total = sum(map(len, columns_BQ))
    if not present:
        return (), None, None
    if len(present) == 1 and all(role >= 0 for roles in real for role in roles):
        return ((present[0], 0, total),), None, None  # padding may have any role
    roles_N = [role for roles in roles_BQ for role in roles]
    order = sorted(range(total), key=lambda place: (roles_N[place] < 0, roles_N[place]))
    spans, first = [], 0
    for role in present:
        end = first + roles_N.count(role)
        spans.append((role, first, end))
        first = end
    order_N = torch.tensor(order, device=network.device)
    return tuple(spans), order_N, order_N.argsort()


def _attend(hidden: Tensor, network: Network, block: Block, step: Step, cache: KVCache, layer: int) -> None:
    """Add what the attention of one layer says to `hidden` (N, width)."""
    joint = block.qkv.apply(_normed(hidden, block.before), step.spans)
    joint = _arranged(joint, step.inverse).view(step.batch * step.width, -1, network.head_width)
    turned = joint[:, : network.heads + network.cached_heads]
    if block.head_norm is not None:
        turned.copy_(_normed(turned, block.head_norm))
    half = turned.roll(network.head_width // 2, -1)
    turned.mul_(step.cos).addcmul_(half, step.sin)
    by_head = joint.view(step.batch, step.width, -1, network.head_width).transpose(1, 2)
    q, k, v = by_head.split_with_sizes(network.split, 1)
    keys, values = cache.update(k, v, layer)
    out = _looked_up(q, keys, values, network, step)
    block.out.add_to(hidden, _arranged(out, step.order), step.spans)


def _looked_up(q: Tensor, keys: Tensor, values: Tensor, network: Network, step: Step) -> Tensor:
    """Return (N, heads * width) in the order of the rows."""
    if not step.rows:
        return _answers(q, keys, values, network, step.mask, step.causal)
    out = q.new_zeros(step.batch, step.width, network.heads * network.head_width)
    for b, row in enumerate(step.rows):
        one, known, said = q[b : b + 1, :, row.padding :], keys[b : b + 1], values[b : b + 1]
        if row.depth:  # a row between two that are computed has none
            known, said = known[:, :, : row.depth], said[:, :, : row.depth]
            out[b, row.padding :] = _answers(one, known, said, network, row.mask, row.causal)
    return out.view(step.batch * step.width, -1)


def _answers(q: Tensor, keys: Tensor, values: Tensor, network: Network, mask: Tensor | None, causal: bool) -> Tensor:
    batch, _, width, _ = q.shape
    grouped = network.heads != network.cached_heads
    if width == 1:
        if grouped:  # the heads that share keys are so many queries
            q = q.reshape(batch, network.cached_heads, -1, network.head_width)
        out = functional.scaled_dot_product_attention(q, keys, values, mask, scale=network.scale)
        return out.reshape(batch, -1)
    out = functional.scaled_dot_product_attention(
        q, keys, values, mask, is_causal=causal, scale=network.scale, enable_gqa=grouped
    )
    return out.transpose(1, 2).reshape(batch * width, -1)


def _transform(hidden: Tensor, block: Block, step: Step) -> None:
    joint = block.gate_up.apply(_normed(hidden, block.between), step.spans)
    gate, up = joint.chunk(2, -1)
    block.down.add_to(hidden, functional.silu(gate).mul_(up), step.spans)


def _kept(hidden: Tensor, step: Step, keep: int) -> Tensor:
    """Return the last `keep` tokens' states of each row (B * keep, width), in the order of the rows."""
    if keep == step.width:
        return _arranged(hidden, step.inverse)
    places = torch.arange(step.batch * step.width, device=hidden.device).view(step.batch, -1)[:, -keep:].reshape(-1)
    return hidden.index_select(0, places if step.inverse is None else step.inverse[places])


def _arranged(rows: Tensor, order: Tensor | None) -> Tensor:
    return rows if order is None else rows.index_select(0, order)


def _normed(x: Tensor, norm: Norm) -> Tensor:
    """Return `x` over its root mean square, times the norm's weight; torch's own takes twice as long on a CPU."""
    if x.dtype != torch.float32:
        return functional.rms_norm(x, x.shape[-1:], None, norm.epsilon) * norm.weight
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    inverse = torch.addcmul(norm.floor, length, length, value=1 / x.shape[-1]).rsqrt_()
    return (x * inverse).mul_(norm.weight)
