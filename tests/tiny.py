"""Random models of three architectures, small enough for any test, and prompts for them."""

from __future__ import annotations

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Phi3Config, Phi3ForCausalLM, Qwen2Config, Qwen2ForCausalLM

from rolecraft import renderers
from rolecraft.model import Loaded
from rolecraft.types import Message, Prompt, Sampling

ARCHITECTURES = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "phi3": (Phi3Config, Phi3ForCausalLM),
}


def model(vocabulary: int, architecture: str = "llama", seed: int = 0, **changes):
    """Return a model of 2 layers and width 32; its large weights make each token matter."""
    torch.manual_seed(seed)
    config, kind = ARCHITECTURES[architecture]
    shape = {
        "vocab_size": vocabulary,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "initializer_range": 0.3,
        "pad_token_id": 0,
    }
    return kind(config(**{**shape, **changes})).eval()


def loaded(tokenizer, architecture: str = "llama", **changes) -> Loaded:
    """Return a tiny model with `tokenizer` and the renderer that fits it."""
    return Loaded(
        f"tiny {architecture}",
        model(len(tokenizer), architecture, **changes),
        tokenizer,
        renderers.find(tokenizer),
        "",
        "",
    )


def prompt(text: str, **sampling) -> Prompt:
    """Return a one-message prompt; replies are 12 tokens long unless told otherwise."""
    return Prompt((Message("user", text),), sampling=Sampling(**{"max_tokens": 12, **sampling}))


class Counted:
    """A runner's calls of the model, counted."""

    def __init__(self, engine) -> None:
        self.calls = 0
        self._forward = engine._runner._forward
        engine._runner._forward = self._count

    def _count(self, *arguments):
        self.calls += 1
        return self._forward(*arguments)
