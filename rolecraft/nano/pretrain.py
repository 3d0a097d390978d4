"""Makes the nano base from nothing: data-parallel processes, one thread each, seeded, checkpointed and resumable."""

from __future__ import annotations

import json
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing.spawn import spawn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from rolecraft import attention, store
from rolecraft.errors import NotFound
from rolecraft.nano import corpus
from rolecraft.nano.tokenizer import VOCABULARY
from rolecraft.nano.tokenizer import train as train_tokenizer
from rolecraft.settings import from_dict


@dataclass(frozen=True, slots=True)
class Settings:
    """What the shipped base was made with: 36.9M tokens, about three quarters of an hour of two processes on two
    cores."""

    hidden_size: int = 128
    num_hidden_layers: int = 5
    num_attention_heads: int = 4
    intermediate_size: int = 352
    steps: int = 6_000
    rows: int = 12
    length: int = 256
    long_length: int = 1024
    long_every: int = 4
    learning_rate: float = 4e-3
    final_learning_rate: float = 1e-4
    warmup: int = 200
    weight_decay: float = 0.05
    random_share: float = 0.12
    tokenizer_documents: int = 20_000
    save_every: int = 500
    seed: int = 20


SIZES: Mapping[str, Mapping[str, int]] = {
    "nano": {},
    "larger": {"hidden_size": 192, "num_hidden_layers": 6, "num_attention_heads": 6, "intermediate_size": 528},
}
"""The shapes by name: what is shipped, and one of 2.9 million parameters with the same tokenizer and heads as wide."""


def sized(size: str, changes: Mapping[str, Any] | None = None) -> Settings:
    """Return the settings of a size, with changes; raises NotFound for a size that there is not, else SettingsError."""
    if size not in SIZES:
        raise NotFound(f"no size {size!r}; there are {', '.join(SIZES)}")
    return from_dict(Settings, {**SIZES[size], **(changes or {})}, "pretrain")


def pretrain(
    settings: Settings,
    output: Path,
    *,
    resume: bool = True,
    say: bool = True,
    after_step: Callable[[int], None] = lambda step: None,
) -> None:
    """Pretrain and write a Hugging Face folder to `output`; call it in every rank of a gloo process group.

    `after_step` is told the number of finished steps. Each rank draws its own documents from (seed, step, rank), so a
    resumed run sees what an unbroken one would have.
    """
    torch.set_num_threads(1)
    rank, ranks = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    tokenizer = train_tokenizer(settings.seed, settings.tokenizer_documents)
    torch.manual_seed(settings.seed)
    model = LlamaForCausalLM(_config(settings))
    optimisers = _optimisers(model, settings)
    output.mkdir(parents=True, exist_ok=True)
    state = output.parent / f"{output.name}.checkpoint.pt"
    first = _restore(state, model, optimisers) if resume and state.exists() else 0
    started, seen, smooth = time.perf_counter(), 0, 0.0
    for step in range(first, settings.steps):
        rate = _rate(settings, step)
        for optimiser in optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate
        ids_BT, weights_BT = _batch(tokenizer, settings, step, rank)
        loss = _step(model, optimisers, ids_BT, weights_BT, ranks)
        seen += ids_BT.numel() * ranks
        smooth = loss if step == first else 0.98 * smooth + 0.02 * loss
        if rank == 0 and say and (step + 1) % 50 == 0:
            speed = seen / (time.perf_counter() - started)
            row = {"step": step + 1, "loss": round(smooth, 4), "tokens_per_second": round(speed)}
            row["minutes_left"] = round((settings.steps - step - 1) * seen / (step + 1 - first) / speed / 60, 1)
            print(json.dumps(row), flush=True)
        if rank == 0 and (step + 1) % settings.save_every == 0:
            _save(state, step + 1, model, optimisers)
        after_step(step + 1)
    if rank == 0:
        _write(model, tokenizer, output)
        state.unlink(missing_ok=True)


def launch(settings: Settings, output: Path, processes: int = 2) -> None:
    """Pretrain in `processes` data-parallel processes; they meet through a file, so no port is needed."""
    with store.lock(output), tempfile.TemporaryDirectory() as folder:
        arguments = (processes, f"file://{folder}/meeting", settings, output)
        spawn(_worker, arguments, nprocs=processes)  # type: ignore[no-untyped-call]


def _worker(rank: int, ranks: int, meeting: str, settings: Settings, output: Path) -> None:
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=ranks)
    try:
        pretrain(settings, output)
    finally:
        dist.destroy_process_group()


def _config(settings: Settings) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=settings.hidden_size,
        num_hidden_layers=settings.num_hidden_layers,
        num_attention_heads=settings.num_attention_heads,
        num_key_value_heads=settings.num_attention_heads,
        intermediate_size=settings.intermediate_size,
        max_position_embeddings=settings.long_length,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=2,
        attn_implementation=attention.register(),
    )


def _optimisers(model: LlamaForCausalLM, settings: Settings) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices, AdamW for the embedding and the norms (specs/nano.md)."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    muon = torch.optim.Muon(
        matrices,
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
        adjust_lr_fn="match_rms_adamw",
    )
    adam = torch.optim.AdamW(others, lr=settings.learning_rate, weight_decay=0.0)
    return [muon, adam]


def _rate(settings: Settings, step: int) -> float:
    """Warm up, hold for a fifth, then fall along a cosine: a constant rate stalls function selection."""
    if step < settings.warmup:
        return settings.learning_rate * (step + 1) / settings.warmup
    hold = settings.steps // 5
    done = max(0, step - hold) / max(1, settings.steps - hold)
    low, high = settings.final_learning_rate, settings.learning_rate
    return low + (high - low) * 0.5 * (1 + math.cos(math.pi * done))


def _batch(tokenizer: PreTrainedTokenizerFast, settings: Settings, step: int, rank: int) -> tuple[Tensor, Tensor]:
    """Return ids and loss weights, both (B, T): rows of documents one after another."""
    random = Random(f"{settings.seed}/{step}/{rank}")
    long = step % settings.long_every == settings.long_every - 1
    length = settings.long_length if long else settings.length
    rows = max(1, settings.rows * settings.length // length)
    stream = _tokens(tokenizer, random, length, settings.random_share)
    packed = [next(stream) for _ in range(rows * length)]
    ids_BT = torch.tensor([token for token, _ in packed]).view(rows, length)
    weights_BT = torch.tensor([weight for _, weight in packed]).view(rows, length)
    return ids_BT, weights_BT


def _tokens(
    tokenizer: PreTrainedTokenizerFast, random: Random, length: int, random_share: float
) -> Iterator[tuple[int, float]]:
    """Yield (token, weight) for ever; every row begins a document, so that long ones fit the row."""
    backend = tokenizer.backend_tokenizer
    position = 0
    while True:
        room = length - position % length
        budget = max(24, int(room * random.choice((0.2, 0.4, 0.9))))
        if random.random() < random_share:
            piece = _random_copy(random, budget)
        else:
            document = corpus.document(random, budget)
            encoded = backend.encode_batch([text for text, _ in document], add_special_tokens=False)
            piece = [(i, w) for code, (_, w) in zip(encoded, document, strict=True) for i in code.ids]
            piece.append((0, 0.15))
        if len(piece) > room:
            piece = piece[:room]
        position += len(piece)
        yield from piece


def _random_copy(random: Random, budget: int) -> list[tuple[int, float]]:
    """Return random vocabulary tokens and their repetition: every token's embedding gets trained."""
    count = random.randrange(4, max(6, budget // 2))
    tokens = [random.randrange(1, VOCABULARY) for _ in range(count)]
    return [(token, 0.0) for token in tokens] + [(token, 1.0) for token in tokens] + [(0, 0.15)]


def _step(
    model: LlamaForCausalLM,
    optimisers: list[torch.optim.Optimizer],
    ids_BT: Tensor,
    weights_BT: Tensor,
    ranks: int,
) -> float:
    with torch.autocast("cpu", torch.bfloat16):
        logits_BTV = model(input_ids=ids_BT, use_cache=False).logits[:, :-1]
    losses_BT = torch.nn.functional.cross_entropy(
        logits_BTV.float().flatten(0, 1), ids_BT[:, 1:].flatten(), reduction="none"
    )
    weights = weights_BT[:, 1:].flatten()
    loss = (losses_BT * weights).sum() / weights.sum().clamp(min=1.0)
    torch.autograd.backward(loss)
    if ranks > 1:
        _average(model, ranks)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimiser in optimisers:
        optimiser.step()
        optimiser.zero_grad(set_to_none=False)
    return loss.item()


def _average(model: LlamaForCausalLM, ranks: int) -> None:
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    offset = 0
    for gradient in gradients:
        gradient.copy_(flat[offset : offset + gradient.numel()].view_as(gradient) / ranks)
        offset += gradient.numel()


def _save(path: Path, step: int, model: LlamaForCausalLM, optimisers: list[torch.optim.Optimizer]) -> None:
    temporary = path.with_suffix(".tmp")
    content: dict[str, Any] = {"step": step, "model": model.state_dict()}
    content["optimisers"] = [optimiser.state_dict() for optimiser in optimisers]
    torch.save(content, temporary)
    os.replace(temporary, path)


def _restore(path: Path, model: LlamaForCausalLM, optimisers: list[torch.optim.Optimizer]) -> int:
    content = torch.load(path, weights_only=True)
    model.load_state_dict(content["model"])
    for optimiser, state in zip(optimisers, content["optimisers"], strict=True):
        optimiser.load_state_dict(state)
    return int(content["step"])


def _write(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, output: Path) -> None:
    """Write bf16 safetensors, configuration and tokenizer: a folder that `AutoModelForCausalLM` loads."""
    model.set_attn_implementation("sdpa")
    model.generation_config.eos_token_id = 2
    model.generation_config.pad_token_id = 0
    model.to(torch.bfloat16).save_pretrained(output)
    tokenizer.save_pretrained(output)
