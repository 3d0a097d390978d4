"""What `gpu.py` measures: each part yields its rows, and a reason in place of what cannot be measured here."""

from __future__ import annotations

import asyncio
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Shape:
    """The model's sizes, and how much work each part is: `rows` of `tokens` in a step, `steps` of tuning, `width` and
    `layers` of the model whose MoR layers are timed, and the `written` tokens of a reply at each of `batches`."""

    model: dict[str, int | bool]
    rows: int
    tokens: int
    steps: int
    width: int
    layers: int
    written: int
    batches: tuple[int, ...]


SHAPES = {
    "1b": Shape(
        {
            "vocab_size": 128256,
            "hidden_size": 2048,
            "intermediate_size": 8192,
            "num_hidden_layers": 16,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "tie_word_embeddings": True,
        },
        rows=8,
        tokens=512,
        steps=12,
        width=2048,
        layers=4,
        written=128,
        batches=(1, 8, 32),
    ),
    "small": Shape(
        {
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "tie_word_embeddings": True,
        },
        rows=2,
        tokens=32,
        steps=3,
        width=64,
        layers=1,
        written=4,
        batches=(1, 2),
    ),
}
"""`1b` is Llama-3.2-1B's."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a part is told."""

    device: str
    shape: Shape
    rounds: int


@dataclass(frozen=True, slots=True)
class Row:
    """What was measured in several rounds, or without values the `unit` says why it was not."""

    what: str
    unit: str
    values: tuple[float, ...] = ()


def clock(device: str) -> Callable[[], float]:
    """Return wall seconds of an accelerator that has finished, and processor seconds of a CPU."""
    import torch

    if torch.device(device).type == "cpu":
        return time.process_time

    def waited() -> float:
        torch.accelerator.synchronize()
        return time.perf_counter()

    return waited


def tried(what: str, work: Callable[[], Iterator[Row]]) -> Iterator[Row]:
    """Yield what `work` does, and a row with the reason where it cannot be done here."""
    try:
        yield from work()
    except Exception as error:  # noqa: BLE001  # whatever a peer or a device raises, the others are still measured
        reason = next(iter(str(error).strip().splitlines()), "")
        yield Row(what, f"not here: {type(error).__name__}: {reason}"[:200])


# ---- MoR's layer beside PEFT


def layer(asked: Asked) -> Iterator[Row]:
    """Yield the milliseconds of a forward and backward pass in bfloat16 by each way, and MoR's share of PEFT's."""
    import mor_layer
    import torch

    from rolecraft.adapters import mor

    shape = asked.shape
    models = mor_layer.variants(shape.width, shape.layers, torch.bfloat16)
    models = {name: one.to(asked.device) for name, one in models.items() if name != "dense loop"}
    ids, role_ids = (one.to(asked.device) for one in mor_layer.batch(shape.rows))
    chosen: list[str] = []
    first = next(iter(mor.layers(models["mor"]).values()))
    first.register_forward_pre_hook(lambda one, inputs: chosen.append(_way(one, inputs[0])))
    times = mor_layer.measure(models, asked.rounds, lambda _: None, (ids, role_ids), clock(asked.device))
    what = f"width {shape.width}, {shape.layers} layers, {shape.rows} x 512 tokens"
    for name, seconds in times.items():
        told = f"mor by {chosen[-1]}" if name == "mor" else name
        yield Row(f"{told}, {what}", "ms", tuple(1000 * one for one in seconds))
    for name in times:
        if name != "mor":
            yield Row(f"mor / {name}", "times its time", tuple(mor_layer.ratios(times, name)))
    if chosen[-1] == "grouped_mm":
        for one in mor.layers(models["mor"]).values():
            one.way = "grouped"
        by_role = mor_layer.measure(
            {"mor": models["mor"]}, asked.rounds, lambda _: None, (ids, role_ids), clock(asked.device)
        )
        yield Row(f"mor by grouped, {what}", "ms", tuple(1000 * one for one in by_role["mor"]))
    else:
        yield Row("mor by grouped_mm", "not here: it is for CUDA from compute capability 8.0 on, in bfloat16")


def _way(one: Any, x: Any) -> str:
    mixture = one.mixtures["default"]
    return str(one._way(x, mixture, x.dtype))


# ---- a tuning step beside TRL


def step(asked: Asked) -> Iterator[Row]:
    """Yield the milliseconds of a step of our trainer and of TRL's, on equal rows of a base in bfloat16."""
    import training

    shape = asked.shape
    few = training.examples(shape.steps * shape.rows, shape.tokens, shape.tokens)
    times: dict[str, list[float]] = {}
    for name, one in (("ours, LoRA", _ours), ("TRL, LoRA", _trl), ("ours, MoR", _ours)):

        def timed(name: str = name, one: Any = one) -> Iterator[Row]:
            stamps = one(asked, few, "mor" if "MoR" in name else "lora")
            # the first ones compile kernels and make the optimizer's states
            times[name] = [1000 * (b - a) for a, b in itertools.pairwise(stamps[1:])]
            yield Row(f"{name}, a step of {shape.rows} x {shape.tokens} tokens", "ms", tuple(times[name]))

        yield from tried(name, timed)
    if {"ours, LoRA", "TRL, LoRA"} <= times.keys():
        ours, theirs = (statistics.median(times[name]) for name in ("ours, LoRA", "TRL, LoRA"))
        yield Row("ours / TRL, LoRA, medians", "times its time", (ours / theirs,))


def _tuned(asked: Asked, kind: str) -> tuple[Any, Any]:
    """Return a base in bfloat16 with a LoRA or a Mixture of Roles on it, and its tokenizer."""
    import batching
    import torch

    from rolecraft.adapters import lora, mor

    loaded = batching.random_llama("random", **asked.shape.model)
    base = loaded.model.to(asked.device, torch.bfloat16)
    if kind == "mor":
        return mor.attach(base, mor.Settings()), loaded.tokenizer
    return lora.attach(base, lora.Settings(r=16, lora_alpha=16, lora_dropout=0.0)), loaded.tokenizer


def _stamps(asked: Asked) -> tuple[Any, list[float]]:
    """Return a callback for transformers' trainers, and the clock after each step that it notes."""
    import transformers

    noted: list[float] = []
    now = clock(asked.device)

    class Noting(transformers.TrainerCallback):  # type: ignore[misc]
        """Notes the clock after each step."""

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            """Note it."""
            noted.append(now())

    return Noting(), noted


def _ours(asked: Asked, few: list[Any], kind: str) -> list[float]:
    from rolecraft import adapters
    from rolecraft.recipe import TrainingSettings
    from rolecraft.train.batches import Cut, Schedule
    from rolecraft.train.rows import Rows
    from rolecraft.train.trainer import RoleTrainer, arguments_for

    if kind == "mor":
        few = [replace(one, roles=tuple(place * 3 // len(one.ids) for place in range(len(one.ids)))) for one in few]
    shape, (tuned, _) = asked.shape, _tuned(asked, kind)
    noting, noted = _stamps(asked)
    extra = {"use_cpu": True} if asked.device == "cpu" else {}
    settings = TrainingSettings(
        max_steps=shape.steps, bf16=asked.device != "cpu", save_steps=0, logging_steps=shape.steps, extra=extra
    )
    lengths, weights = [len(one.ids) for one in few], [sum(one.weights) for one in few]
    schedule = Schedule(lengths, weights, Cut(shape.rows), seed=0)
    with tempfile.TemporaryDirectory() as folder:
        arguments = arguments_for(settings, Path(folder))
        rows = Rows(few, ("assistant",), pad_id=0)
        RoleTrainer(tuned, arguments, rows, schedule, adapters.find(kind), ("assistant",), [noting]).train()
    return noted


def _trl(asked: Asked, few: list[Any], kind: str) -> list[float]:
    from datasets import Dataset
    from datasets.table import InMemoryTable
    from trl import SFTConfig, SFTTrainer

    shape, (tuned, words) = asked.shape, _tuned(asked, kind)
    noting, noted = _stamps(asked)
    labels = [[token if weight else -100 for token, weight in zip(one.ids, one.weights, strict=True)] for one in few]
    rows = [{"input_ids": list(one.ids), "labels": told} for one, told in zip(few, labels, strict=True)]
    with tempfile.TemporaryDirectory() as folder:
        arguments = SFTConfig(
            output_dir=folder,
            max_steps=shape.steps,
            per_device_train_batch_size=shape.rows,
            learning_rate=2e-4,
            bf16=asked.device != "cpu",
            use_cpu=asked.device == "cpu",
            gradient_checkpointing=False,
            max_length=None,
            dataset_kwargs={"skip_prepare_dataset": True},
            save_strategy="no",
            logging_steps=shape.steps,
            report_to=[],
            disable_tqdm=True,
        )
        SFTTrainer(
            tuned,
            arguments,
            # named, since some of its versions cannot digest what they hold
            train_dataset=Dataset(InMemoryTable.from_pylist(rows), fingerprint="rows"),
            processing_class=words,
            callbacks=[noting],
        ).train()
    return noted


# ---- playing beside transformers' generate


def play(asked: Asked) -> Iterator[Row]:
    """Yield the tokens/s of replies by the engine and by generate at each batch, and the engine's over generate's."""
    import batching
    import torch

    dtype = torch.float32 if asked.device == "cpu" else torch.bfloat16

    def fresh() -> Any:
        loaded = batching.random_llama("random", **asked.shape.model)
        return replace(loaded, model=loaded.model.to(asked.device, dtype))

    untouched, now, written = fresh(), clock(asked.device), asked.shape.written
    rates: dict[tuple[str, int], tuple[float, ...]] = {}

    def timed(name: str, batch: int, work: Callable[[], object]) -> Iterator[Row]:
        found = []
        for _ in range(asked.rounds + 1):
            began = now()
            work()
            found.append(batch * written / (now() - began))
        rates[name, batch] = tuple(found[1:])
        yield Row(f"{name}, batch {batch}", "tokens/s", rates[name, batch])

    for batch in asked.shape.batches:
        prompts = batching.questions(batch, written)
        yield from tried(
            f"generate, batch {batch}",
            lambda batch=batch, prompts=prompts: timed(
                "generate", batch, lambda: batching.generate(untouched, prompts)
            ),
        )
    yield from tried("engine", lambda: _engine(asked, fresh(), timed))
    for batch in asked.shape.batches:
        if {("engine", batch), ("generate", batch)} <= rates.keys():
            pairs = zip(rates["engine", batch], rates["generate", batch], strict=True)
            yield Row(f"engine / generate, batch {batch}", "times its rate", tuple(a / b for a, b in pairs))


def _engine(asked: Asked, loaded: Any, timed: Callable[..., Iterator[Row]]) -> Iterator[Row]:
    import batching

    from rolecraft.engine import LocalEngine, Settings

    with LocalEngine(loaded, Settings(max_requests=max(asked.shape.batches))) as engine:
        own = engine._runner.fused
        forward = "the engine's own, written for CPUs" if own else "transformers', in the engine's batches"
        yield Row("forward that plays", forward)
        for batch in asked.shape.batches:
            prompts = batching.questions(batch, asked.shape.written)

            def work(prompts: Any = prompts) -> None:
                engine.forget()
                batching.together(engine, prompts)

            yield from timed("engine", batch, work)


# ---- how far from the CPU


def exact(asked: Asked) -> Iterator[Row]:
    """Yield how far MoR's logits and gradients lie from the CPU's in float32, and how many replies are the same."""
    import mor_layer
    import torch

    ids, role_ids = mor_layer.batch()

    def told(device: str, dtype: Any, way: str | None) -> tuple[Any, Any]:
        from peft import get_peft_model

        from rolecraft.adapters import mor

        model = get_peft_model(mor_layer.base(asked.shape.width // 4, 2, torch.float32), mor.MoRConfig())
        generator = torch.Generator().manual_seed(2)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "mor_B" in name:  # zero at the start, so that the mixtures would add nothing
                    parameter.copy_(0.02 * torch.randn(parameter.shape, generator=generator))
        model = model.to(device, dtype).eval()
        for one in mor.layers(model).values():
            one.way = way
        logits = model(input_ids=ids.to(device), role_ids=role_ids.to(device), use_cache=False).logits.float()
        logits.logsumexp(-1).mean().backward()
        found = [one.grad.float().flatten() for one in model.parameters() if one.grad is not None]
        return logits.detach().cpu(), torch.cat(found).cpu()

    reference = told("cpu", torch.float32, None)
    ways = [("float32", torch.float32, "grouped"), ("bfloat16", torch.bfloat16, "grouped")]
    for name, dtype, way in [*ways, ("bfloat16", torch.bfloat16, "grouped_mm")]:

        def compared(name: str = name, dtype: Any = dtype, way: str = way) -> Iterator[Row]:
            for what, got, wanted in zip(
                ("logits", "gradients"), told(asked.device, dtype, way), reference, strict=True
            ):
                error = float((got - wanted).norm() / wanted.norm())
                yield Row(f"mor by {way} in {name}, {what}", "relative error to the CPU's float32", (error,))

        yield from tried(f"mor by {way} in {name}", compared)
    yield from tried("engine's replies", lambda: _replies(asked))


def _replies(asked: Asked) -> Iterator[Row]:
    import batching

    from rolecraft.engine import LocalEngine, Settings

    prompts = batching.questions(8, 4 * asked.shape.batches[-1])

    def written(device: str) -> list[tuple[int, ...]]:
        loaded = batching.build("1M")
        loaded = replace(loaded, model=loaded.model.to(device))

        async def ask() -> list[Any]:
            return await asyncio.gather(*(engine.complete(prompt) for prompt in prompts))

        with LocalEngine(loaded, Settings(max_requests=len(prompts))) as engine:
            return [one.turn.token_ids for (one,) in asyncio.run(ask())]

    same = [one == two for one, two in zip(written("cpu"), written(asked.device), strict=True)]
    yield Row("engine's greedy replies in float32", "share that is the CPU's to the token", (sum(same) / len(same),))
