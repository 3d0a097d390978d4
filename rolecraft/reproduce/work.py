"""What a tuning computes: floating-point operations of a token, by the numbers that take part in it.

Two operations, a product and a sum, for each number of the layers' matrices: forwards, again backwards to the inputs,
and once more backwards to each number that is trained. Embeddings, attention's products of tokens with tokens, and what
checkpointing computes twice are left out.
"""

from __future__ import annotations

from rolecraft import adapters, model
from rolecraft.recipe import Recipe


def per_token(recipe: Recipe) -> float:
    """Return the operations of a token in training, worked out from the base's config; loads no weights."""
    empty = model.make_empty(model.load_config(recipe.model.base))
    frozen: int = empty.num_parameters(exclude_embeddings=True)
    own = {id(parameter) for parameter in empty.parameters()}
    attached = adapters.find(recipe.adapter.name).attach(empty, recipe.adapter.settings)
    trained = adapters.count_trainable(attached)
    beside = sum(parameter.numel() for parameter in attached.parameters() if id(parameter) not in own)
    share = active(recipe)
    return float(4 * (frozen + beside * share) + 2 * trained * share)


def active(recipe: Recipe) -> float:
    """Return which share of an adapter's numbers is active for a token: a role's own, and of its LoRAs those chosen."""
    made = recipe.adapter
    gate = adapters.find(made.name).gate(made.settings)
    if gate is None:
        return 1.0
    roles, top_k = getattr(made.settings, "roles", {}), getattr(made.settings, "top_k", {})
    if not roles:
        return 1 / len(gate.roles)
    routed = getattr(made.settings, "router", True)
    chosen = [1 + top_k[role] if routed else count for role, count in roles.items()]
    return float(sum(chosen) / len(chosen) / sum(roles.values()))
