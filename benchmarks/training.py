"""A training step of ours beside a bare PyTorch loop on the same batches, in one run: milliseconds and their ratio.

The model is random and of the nano base's shape (d 128, 5 layers, vocabulary 1024), with a LoRA on all linear layers;
examples have 100 to 230 tokens, four in ten of them trained. `python benchmarks/training.py --json`

`--shared BASE` measures instead a step of rows that tell the same tools, computed apart and from one shared prefix, on
random weights of the base's shape with a LoRA of rank 16 in float32: CPU seconds of both, alternately.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch
import transformers

from rolecraft import adapters, attention, model, objectives
from rolecraft.adapters import lora
from rolecraft.examples import Example
from rolecraft.recipe import TrainingSettings
from rolecraft.train.batches import Alike, Batch, Cut, Schedule
from rolecraft.train.rows import Rows
from rolecraft.train.trainer import RoleTrainer, arguments_for

VOCABULARY = 1024


def examples(count: int, shortest: int = 100, longest: int = 230) -> list[Example]:
    """Return random examples of one speaker, four in ten of their tokens trained."""
    draw = random.Random(0)
    found = []
    for _ in range(count):
        length = draw.randint(shortest, longest)
        ids = tuple(draw.randrange(VOCABULARY) for _ in range(length))
        weights = tuple(float(draw.random() < 0.4) for _ in range(length))
        found.append(Example(ids, weights, ("assistant",) * length))
    return found


def adapted() -> Any:
    """Return a random Llama of the nano base's shape with a LoRA of rank 12, the same every time."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=352,
        num_hidden_layers=5,
        num_attention_heads=4,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        attn_implementation="eager",
    )
    base = transformers.LlamaForCausalLM(config)
    return lora.attach(base, lora.Settings(r=12, lora_alpha=24, lora_dropout=0.0))


def bare(rows: Rows, schedule: Schedule, steps: int, bf16: bool) -> list[float]:
    """Return the CPU clock after each step of a loop that does what it must: all logits, transformers' own loss."""
    net = adapted().train()
    trained = [parameter for parameter in net.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3, weight_decay=0.0, fused=True)

    clock = []
    for _, (batch,) in zip(range(steps), schedule, strict=False):
        inputs = rows[batch]
        labels = inputs["ids_BT"].masked_fill(inputs["weights_BT"] == 0, -100)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = net(input_ids=inputs["ids_BT"], labels=labels, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        clock.append(time.process_time())
    return clock


class Clock(transformers.TrainerCallback):
    """Notes the CPU clock after each step."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Note it."""
        self.times.append(time.process_time())


def ours(rows: Rows, schedule: Schedule, steps: int, bf16: bool, folder: Path) -> list[float]:
    """Return the CPU clock after each of the same steps by our trainer, which logs every ten of them."""
    settings = TrainingSettings(learning_rate=1e-3, max_steps=steps, bf16=bf16, save_steps=0, logging_steps=10)
    arguments, clock = arguments_for(settings, folder), Clock()
    RoleTrainer(adapted(), arguments, rows, schedule, adapters.find("lora"), ("assistant",), [clock]).train()
    return clock.times


def alike(groups: int, group: int, prefix: int, rest: int) -> list[Example]:
    """Return random examples: a group's begin with the same `prefix` tokens, and have `rest` more, a third trained."""
    draw = random.Random(0)
    found = []
    for _ in range(groups):
        tools = tuple(draw.randrange(VOCABULARY) for _ in range(prefix))
        for _ in range(group):
            length = draw.randint(rest // 2, rest + rest // 2)
            ids = tuple(draw.randrange(VOCABULARY) for _ in range(length))
            weights = (0.0,) * (prefix + length - length // 3) + (1.0,) * (length // 3)
            found.append(Example((*tools, *ids), weights, ("assistant",) * (prefix + length)))
    return found


def shaped(base: str, layers: int) -> Any:
    """Return a random model of the base's shape, with as many layers, and a LoRA of rank 16 on it."""
    torch.manual_seed(0)
    config = model.load_config(base)
    config.num_hidden_layers, config.layer_types = layers, None
    empty = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return lora.attach(empty, lora.Settings(r=16, lora_alpha=32, lora_dropout=0.0)).train()


def seconds(net: Any, rows: Rows, batch: Batch) -> tuple[float, float]:
    """Return the CPU seconds of a batch forward and back, and its loss."""
    inputs, began = rows[batch], time.process_time()
    keep_BT, targets_N, weights_N = objectives.next_token_targets(inputs["ids_BT"], inputs["weights_BT"])
    with objectives.only_logits_at(net.get_output_embeddings(), keep_BT):
        logits = net(input_ids=inputs["ids_BT"], use_cache=False, **inputs.get("call", {})).logits
    losses_N = objectives.token_losses(objectives.pick_logits(logits, keep_BT), targets_N)
    loss = objectives.weighted_sum(losses_N, weights_N)
    loss.backward()
    return time.process_time() - began, float(loss.detach())


def compare_shared(options: argparse.Namespace) -> dict[str, float]:
    """Return the best seconds of a step computed apart and from shared prefixes, their ratio, and both losses."""
    groups = options.batch // options.group
    few = alike(groups, options.group, options.prefix, options.rest)
    rows, net = Rows(few, ("assistant",), pad_id=0), shaped(options.shared, options.layers)
    lengths, weights = [len(one.ids) for one in few], [sum(one.weights) for one in few]
    keys = [str(place // options.group) for place in range(len(few))]
    ((together,),) = Schedule(lengths, weights, Cut(len(few)), 0, alike=Alike(keys, options.group))
    apart = Batch(together.rows, together.scale)
    own, found = net.config._attn_implementation, dict[str, float]()
    for _ in range(options.rounds):
        for name, batch, attends in (("apart", apart, own), ("shared", together, attention.register_shared())):
            net.set_attn_implementation(attends)
            taken, found[f"{name}_loss"] = seconds(net, rows, batch)
            found[f"{name}_s"] = min(taken, found.get(f"{name}_s", taken))
    return {**found, "ratio": found["shared_s"] / found["apart_s"]}


def milliseconds(clock: list[float]) -> float:
    """Return the mean step after the first; CPU time, for wall time would measure the machine's other work as well."""
    return 1000 * (clock[-1] - clock[0]) / (len(clock) - 1)


def main() -> None:
    """Alternate both loops and print the best of each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--fp32", action="store_true", help="float32 instead of bf16 autocast")
    parser.add_argument("--shared", metavar="BASE", help="measure rows that share a prefix, on a base of this shape")
    parser.add_argument("--group", type=int, default=4, help="with --shared: rows that share a prefix")
    parser.add_argument("--prefix", type=int, default=820, help="with --shared: tokens that they share")
    parser.add_argument("--rest", type=int, default=110, help="with --shared: tokens of a row's own, on average")
    parser.add_argument("--layers", type=int, default=30, help="with --shared: layers of the base")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    options = parser.parse_args()
    model.limit_threads()
    transformers.logging.set_verbosity_error()
    warnings.simplefilter("ignore")
    if options.shared:
        measured = compare_shared(options)
        told = " ".join(f"{name} {value:.6g}" for name, value in measured.items())
        print(f"a step of {options.batch} rows, {options.group} to a prefix: {told}")
        if options.json:
            print(json.dumps(measured))
        return
    few = examples(options.steps * options.batch)
    rows = Rows(few, ("assistant",), pad_id=0)
    lengths, weights = [len(one.ids) for one in few], [sum(one.weights) for one in few]
    schedule = Schedule(lengths, weights, Cut(options.batch), seed=0)
    times: dict[str, list[float]] = {"bare": [], "ours": []}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.rounds):
            times["bare"].append(milliseconds(bare(rows, schedule, options.steps, not options.fp32)))
            times["ours"].append(milliseconds(ours(rows, schedule, options.steps, not options.fp32, Path(folder))))
    best = {name: min(found) for name, found in times.items()}
    result = {
        "bare_ms": round(best["bare"], 1),
        "ours_ms": round(best["ours"], 1),
        "ratio": best["ours"] / best["bare"],
    }
    print(f"bare loop {result['bare_ms']} ms, ours {result['ours_ms']} ms a step: ratio {result['ratio']:.3f}")
    if options.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
