"""Runs a transformers causal language model over rows of the KV cache: prefill and decode.

Not covered: models whose attention forgets or is biased by distance; they are refused by a trial run, not by a list.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch
from peft import PeftModel

from rolecraft.engine.fused import run as run_fused
from rolecraft.engine.kv_cache import KVCache
from rolecraft.engine.layout import Network
from rolecraft.engine.layout import read as read_network
from rolecraft.engine.packed import Kind
from rolecraft.engine.packing import Packer, both, pack, pack_modules, packer, with_adapter
from rolecraft.engine.precision import PrefillDtype, halved, pays
from rolecraft.errors import EngineError, SettingsError
from rolecraft.model import Loaded

_CACHEABLE = frozenset({"full_attention", "sliding_attention"})


_ROLE = 32
"""A computed token is its id and, from this bit on, its role id plus one: equal ids of other roles have other keys and
values."""
_ID = (1 << _ROLE) - 1


def cache_keys(ids: Sequence[int], roles: Sequence[int]) -> list[int]:
    """Return the tokens of `ids` computed by `roles`, -1 for the base alone, as the KV cache knows them."""
    return [token | (role + 1) << _ROLE for token, role in zip(ids, roles, strict=True)]


class ModelRunner:
    """A model and its `KVCache`; `fused` runs in place of the model's forward where `layout` reads the architecture.

    Tokens are those of `cache_keys`. `limit` is the most tokens the model holds with nothing forgotten (None: unknown),
    `context` the most it does here; `vocabulary` is the width of the logits.
    """

    def __init__(
        self,
        loaded: Loaded,
        rows: int,
        context: int,
        *,
        use_fused: bool = True,
        prefill_dtype: PrefillDtype = "float32",
        pack_as: Kind | None = None,
        pack_prompts: bool = True,
    ) -> None:
        """Make room for `rows` sequences of `context` tokens; raises EngineError for a model that cannot be served.

        `pack_as`: the base's matrices are packed so, once the model was tried out, and let go; `pack_prompts`: prompts
        have them in bfloat16.
        """
        self._name = loaded.name
        self.model = _unwrapped(loaded)
        self.model.eval()
        self.limit = _context_limit(loaded)
        self.context = min(context, self.limit or context)
        parameter = next(self.model.parameters())
        self._device = parameter.device
        self._roles = 0 if loaded.gate is None else len(loaded.gate.roles)
        self._virtual = list(loaded.virtual)
        self._columns = torch.arange(self.context + 1, device=self._device)
        self._bias = torch.tensor([0.0, float("-inf")], dtype=parameter.dtype, device=self._device)
        self.cache = KVCache(rows, self.context, self._device)
        self._prefill_halved = pack_as is None and pays(prefill_dtype, parameter)
        self._pack_as = pack_as
        self.packer: Packer | None = None
        self._check_room()
        self._networks = self._read_networks() if use_fused else None
        self.vocabulary = self._probe()
        if pack_as is not None:
            self._pack(pack_as, pack_prompts)
            return
        if prefill_dtype == "bfloat16" and self._prefill_halved and not self.fused:
            raise SettingsError(
                f"engine.prefill_dtype is 'bfloat16', and {self._name!r} is left to transformers, which cannot mix "
                "types; set it (--prefill-dtype) to 'auto' or 'float32', or load the whole model in bfloat16"
            )

    @property
    def fused(self) -> bool:
        """Whether `fused` runs, and not the model's own forward."""
        return self._networks is not None

    def refresh(self) -> None:
        """Forget all tokens, and take the model's weights as they are now."""
        self.cache.clear()
        self.model.eval()
        if self._networks is not None:
            self._networks = self._read_networks() if self.packer is None else self._with_adapter(self._networks[0])

    @property
    def copies(self) -> dict[str, int]:
        """The bytes of every copy of the weights that is kept, by what it is for."""
        if self.packer is not None:
            return dict(self.packer.nbytes)
        parameters = list(self.model.parameters())
        kind = str(parameters[0].dtype).removeprefix("torch.")
        found = {f"{kind} for all": sum(parameter.nbytes for parameter in parameters)}
        if self._networks is not None:
            linears = [one for block in self._networks[1].blocks for one in block.linears]
            if half := sum(one.half.nbytes for one in linears if one.half is not None):
                found["bfloat16 for prompts"] = half
        return found

    @property
    def is_exact(self) -> bool:
        """Whether a row is the same to the bit whatever stands beside it, if prompts and replies are not mixed."""
        return self._networks is not None and self._networks[0].apart

    def _pack(self, kind: Kind, prompts: bool) -> None:
        """Pack the base's matrices, which the model then lacks."""
        fused, self._networks = self.fused, None  # so that its matrices can go one by one
        self.cache.reset()
        self.packer = packer(self.model, kind, prompts)
        try:
            if fused:
                self._networks = pack(self.model, self.context + 1, self.packer)
            else:
                pack_modules(self.model, self.packer)
                self._bias = self._bias.float()
            with torch.inference_mode():
                self._cached_logits(cache_keys(range(self._probe_length), [-1] * self._probe_length))
        except _MODEL_ERRORS as error:
            raise EngineError(
                f"{self._name!r} does not run with its weights in {kind} ({type(error).__name__}: {error}); set "
                "engine.weights (--weights) to 'float32'"
            ) from error

    def _with_adapter(self, network: Network) -> tuple[Network, Network]:
        return both(with_adapter(network, self.model))

    def _read_networks(self) -> tuple[Network, Network] | None:
        """Return the weights as one token a row, and as prompts, perhaps in another type, are multiplied by them."""
        network = read_network(self.model, self.context + 1, with_lora=self._pack_as is not None)
        return None if network is None else (network, halved(network) if self._prefill_halved else network)

    def _check_room(self) -> None:
        if self.context < self._probe_length:
            raise SettingsError(
                f"engine.max_context is {self.context}, and {self._name!r} is tried out on {self._probe_length} tokens "
                "at the start; set it (--max-context) higher"
            )

    @property
    def _probe_length(self) -> int:
        """How many tokens a trial takes: some of each role."""
        return max(6, self._roles + 2)

    def _probe(self) -> int:
        """Compare cached with uncached computation on a few tokens: it tells what the model can be run by.

        Return the width of the logits.
        """
        tokens, expected = self._uncached_logits()
        if self._networks is not None:
            with suppress(*_MODEL_ERRORS):
                if self._is_close(self._cached_logits(tokens), expected):
                    return int(expected.shape[-1])
            self._networks = None
        try:
            got = self._cached_logits(tokens)
        except _MODEL_ERRORS as error:
            raise EngineError(
                f"{self._name!r} does not work with cached rows ({type(error).__name__}: {error}); {_REMEDY}"
            ) from error
        if not self._is_close(got, expected):
            raise EngineError(f"{self._name!r} computes something else with cached rows than without; {_REMEDY}")
        return int(expected.shape[-1])

    def prefill(self, rows: Sequence[tuple[int, list[int]]], keep: int = 1) -> torch.Tensor:
        """Append tokens to rows, in ascending order of row; return the logits (B, K, V) after the last `keep` of each.

        Where a row has fewer new tokens, those before them mean nothing.
        """
        width = max(len(new) for _, new in rows)
        ids, columns = [], []
        for row, new in rows:  # padded on the left, so that the last column is the last token of all
            padding, known = width - len(new), len(self.cache.tokens[row])
            ids.append([0] * padding + new)
            columns.append([-1] * padding + list(range(known, known + len(new))))
        logits_BKV = self._forward([row for row, _ in rows], ids, columns, keep, width > 1 or self.is_exact)
        for row, new in rows:
            self.cache.tokens[row] += new
        return logits_BKV

    def decode(self, rows: Sequence[tuple[int, int]]) -> torch.Tensor:
        """Append one token to each row, in ascending order; return the logits (B, V) after it.

        Rows between them are computed too, and discarded: reading neighbouring rows in place beats gathering them.
        """
        low, high = rows[0][0], rows[-1][0] + 1
        ids, columns = [[0]] * (high - low), [[-1]] * (high - low)
        for row, token in rows:
            ids[row - low], columns[row - low] = [token], [len(self.cache.tokens[row])]
        logits_BV = self._forward(range(low, high), ids, columns, 1, False)[:, 0]
        for row, token in rows:
            self.cache.tokens[row].append(token)
        return logits_BV if len(rows) == high - low else logits_BV[[row - low for row, _ in rows]]

    def _forward(
        self,
        rows: Sequence[int],
        tokens_BQ: Sequence[Sequence[int]],
        columns_BQ: Sequence[Sequence[int]],
        keep: int,
        as_prompt: bool,
    ) -> torch.Tensor:
        """Run new tokens, each at its own column of its row (-1: padding); return the last `keep` logits (B, K, V)."""
        depth = max(columns[-1] for columns in columns_BQ) + 1
        self.cache.prepare(rows, columns_BQ, depth)
        if self._networks is not None:
            network = self._networks[as_prompt]
            ids_BQ = [[token & _ID for token in tokens] for tokens in tokens_BQ]
            roles_BQ = [[(token >> _ROLE) - 1 for token in tokens] for tokens in tokens_BQ]
            return run_fused(network, self.cache, ids_BQ, roles_BQ, columns_BQ, keep)
        tokens, columns = torch.tensor([tokens_BQ, columns_BQ], device=self._device)
        positions = columns.clamp(min=0)
        hidden = self._columns[:depth] > positions[:, None, :, None]
        logits: torch.Tensor = self.model(
            **self._inputs(tokens),
            attention_mask=torch.where(hidden, self._bias[1], self._bias[0]),  # (B, 1, Q, depth), added to the scores
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=keep,
        ).logits
        return logits[:, -keep:].float()

    def _inputs(self, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
        if not self._roles:
            return {"input_ids": tokens}
        return {"input_ids": tokens & _ID, "role_ids": (tokens >> _ROLE) - 1}

    @torch.inference_mode()
    def _uncached_logits(self) -> tuple[list[int], torch.Tensor]:
        """Return a few tokens of all roles, and what the model says after the last of them without cached rows."""
        words, places = self.model.get_input_embeddings().weight.shape[0], range(self._probe_length)
        ids = [(5 + 7 * place) % words for place in places]
        ids[:1] = self._virtual[:1] or ids[:1]
        tokens = cache_keys(ids, [place % (self._roles + 1) - 1 for place in places])
        try:
            inputs = self._inputs(torch.tensor([tokens], device=self._device))
            return tokens, self.model(**inputs, use_cache=False).logits[0, -1].float()
        except _MODEL_ERRORS as error:
            raise EngineError(f"{self._name!r} does not run ({type(error).__name__}: {error}); {_REMEDY}") from error

    @torch.inference_mode()
    def _cached_logits(self, tokens: list[int]) -> torch.Tensor:
        """Return what is said after the last of some tokens when they come in pieces, beside another row."""
        try:
            self.cache.reserve(2, len(tokens))
            self.prefill([(0, tokens), (1, tokens[:-2])])
            self.prefill([(1, tokens[-2:-1])])
            return self.decode([(1, tokens[-1])])[0]
        finally:
            self.cache.clear()

    def _is_close(self, got: torch.Tensor, expected: torch.Tensor) -> bool:
        tolerance = 1e-3 if self._bias.dtype == torch.float32 else 5e-2
        return torch.allclose(got, expected, rtol=tolerance, atol=tolerance * max(1.0, float(expected.abs().max())))


_MODEL_ERRORS = (AttributeError, TypeError, ValueError, RuntimeError, IndexError, KeyError, NotImplementedError)
"""What a model raises that cannot be called as here."""
_REMEDY = "use a model with plain causal attention, such as Llama, Qwen2, Qwen3 or Phi-3"


def _unwrapped(loaded: Loaded) -> Any:
    """Return the model without peft's wrapper, whose layers stay in place."""
    if not isinstance(loaded.model, PeftModel):
        return loaded.model
    if loaded.model.active_peft_config.is_prompt_learning:
        raise EngineError(
            f"the adapter of {loaded.name!r} is learned prompts, which this engine cannot play; tune a LoRA"
        )
    return loaded.model.get_base_model()


def _context_limit(loaded: Loaded) -> int | None:
    """Return how many tokens the model holds with nothing forgotten; a window forgets only what lies outside it."""
    config = loaded.model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ())
    if not kinds <= _CACHEABLE:
        raise EngineError(f"{loaded.name!r} has layers of {', '.join(sorted(kinds - _CACHEABLE))}; {_REMEDY}")
    window = getattr(config, "sliding_window", None)
    slides = window and getattr(config, "use_sliding_window", True) and (not kinds or "sliding_attention" in kinds)
    rope = getattr(config, "rope_parameters", None) or {}
    # Beyond its first length, longrope turns all positions by other angles, and the cached keys would be wrong.
    turns = rope.get("original_max_position_embeddings") if rope.get("rope_type") == "longrope" else None
    limits = [limit for limit in (loaded.context, window if slides else None, turns) if limit]
    return min(limits, default=None)
