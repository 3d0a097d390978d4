"""A supervised step of ours beside TRL's SFTTrainer: the same weights, rows, LoRA and precision.

    make .venv-trl/ready
    OMP_NUM_THREADS=1 python benchmarks/sft.py --base smollm2 --python .venv-trl/bin/python --json

Both tune on the same few rows of random tokens, a third of them trained, each in a process of its own, a step each in
turn; the losses of the first step must agree. Seconds are of the processor, memory a process's peak; the machine's
own rate is that of a product in float32 of matrices that fit its cache. Not covered: rows of unequal lengths.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import peer
from rich.console import Console
from rich.table import Table

HERE, PEER = "rolecraft", "TRL"
_RANK, _RATE = 16, 8e-4
_TURNS = """
import json, resource, sys, time
from transformers import TrainerCallback

class Turns(TrainerCallback):
    # Waits for its turn before each step, and tells what the step took.
    def on_step_begin(self, args, state, control, **_):
        sys.stdin.readline()
        self.began = time.process_time(), time.monotonic()

    def on_step_end(self, args, state, control, **_):
        self.taken = {"cpu_s": time.process_time() - self.began[0], "wall_s": time.monotonic() - self.began[1]}

    def on_log(self, args, state, control, logs=None, **_):
        if logs and "loss" in logs:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
            print("step " + json.dumps({**self.taken, "loss": logs["loss"], "peak_gib": peak}), flush=True)

told = json.loads(sys.argv[1])
"""
_OURS = """
from pathlib import Path
from rolecraft import adapters, attention, model
from rolecraft.adapters import lora
from rolecraft.examples import Example
from rolecraft.recipe import TrainingSettings
from rolecraft.train.batches import Cut, Schedule
from rolecraft.train.rows import Rows
from rolecraft.train.trainer import RoleTrainer, arguments_for

model.limit_threads()
base = model.load(told["folder"]).model
if told["bf16"] and attention.serves(base):
    base.set_attn_implementation(attention.register())
tuned = lora.attach(base, lora.Settings(r=told["rank"], lora_alpha=2 * told["rank"], lora_dropout=0.0))
examples = [Example(tuple(ids), tuple(mask), ("assistant",) * len(ids)) for ids, mask in told["rows"]]
settings = TrainingSettings(
    learning_rate=told["rate"], lr_scheduler_type="constant", warmup_steps=0, max_steps=told["steps"],
    bf16=told["bf16"], save_steps=0, logging_steps=1,
    per_device_train_batch_size=len(examples), gradient_accumulation_steps=1,
)
lengths, weights = [len(one.ids) for one in examples], [sum(one.weights) for one in examples]
schedule = Schedule(lengths, weights, Cut(len(examples)), 0)
arguments = arguments_for(settings, Path(told["output"]))
rows = Rows(examples, ("assistant",), pad_id=0)
RoleTrainer(tuned, arguments, rows, schedule, adapters.find("lora"), ("assistant",), [Turns()]).train()
"""
_THEIRS = """
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoTokenizer
from trl import SFTConfig, SFTTrainer

torch.set_num_threads(1)
rows = [
    {"input_ids": ids, "labels": [one if trained else -100 for one, trained in zip(ids, mask)]}
    for ids, mask in told["rows"]
]
SFTTrainer(
    told["folder"], processing_class=AutoTokenizer.from_pretrained(told["folder"]),
    train_dataset=Dataset.from_list(rows), callbacks=[Turns()],
    peft_config=LoraConfig(r=told["rank"], lora_alpha=2 * told["rank"], lora_dropout=0.0, target_modules="all-linear"),
    args=SFTConfig(
        output_dir=told["output"], use_cpu=True, bf16=told["bf16"], gradient_checkpointing=False, report_to=[], seed=0,
        per_device_train_batch_size=len(rows), max_steps=told["steps"], learning_rate=told["rate"], weight_decay=0.0,
        lr_scheduler_type="constant", max_length=None, packing=False,
        dataset_kwargs={"skip_prepare_dataset": True}, save_strategy="no", logging_steps=1, disable_tqdm=True,
        model_init_kwargs={"dtype": "float32"},
    ),
).train()
"""


def drawn(count: int, length: int, words: int) -> list[tuple[list[int], list[float]]]:
    """Return rows of random ids below `words`, the last third of each trained."""
    draw = random.Random(0)
    mask = [0.0] * (length - length // 3) + [1.0] * (length // 3)
    return [([draw.randrange(words) for _ in range(length)], mask) for _ in range(count)]


def whole(base: str, folder: Path) -> tuple[int, int, int]:
    """Write the base in float32 for both; return the numbers in its layers, in its head, and how many words it has."""
    from rolecraft import model

    loaded = model.load(base)
    net = loaded.model.float()
    net.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    head = net.get_output_embeddings().weight
    inner = sum(one.numel() for name, one in net.named_parameters() if one.dim() == 2 and "embed" not in name)
    return inner - (0 if net.config.tie_word_embeddings else head.numel()), head.numel(), len(loaded.tokenizer)


def rate() -> float:
    """Return the machine's GFLOP/s in float32, the best of several products."""
    import torch

    torch.set_num_threads(1)
    one, best = torch.randn(1024, 1024), 0.0
    for _ in range(8):
        began = time.process_time()
        one @ one
        best = max(best, 2 * 1024**3 / (time.process_time() - began) / 1e9)
    return best


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Return the steps of both but for the first, which compiles and fills caches, and what a step computes."""
    with tempfile.TemporaryDirectory() as place:
        inner, head, words = whole(options.base, Path(place) / "base")
        told = {
            "folder": str(Path(place) / "base"),
            "output": str(Path(place) / "run"),
            "rows": drawn(options.batch, options.length, words),
            "rank": _RANK,
            "rate": _RATE,
            "bf16": options.bf16,
            "steps": options.n + 1,
        }
        steps: dict[str, list[dict[str, float]]] = {HERE: [], PEER: []}
        with (
            peer.running(sys.executable, _TURNS + _OURS, told, loud=options.loud) as mine,
            peer.running(str(options.python), _TURNS + _THEIRS, told, loud=options.loud) as other,
        ):
            for number in range(options.n + 1):
                for name, trainer in ((HERE, mine), (PEER, other)):
                    steps[name].append(trainer.step())
                    print(f"{name} step {number}: {steps[name][-1]}", file=sys.stderr, flush=True)
    first = [taken[0]["loss"] for taken in steps.values()]
    if abs(first[0] - first[1]) > 0.01 * abs(first[1]):
        raise SystemExit(f"the first steps' losses differ: ours {first[0]:.4f}, TRL's {first[1]:.4f}")
    tokens, trained = options.batch * options.length, options.batch * (options.length // 3)
    flops = 4 * (inner * tokens + head * trained)  # forward, and back to the inputs: weights have no gradients
    counted = {name: taken[1:] for name, taken in steps.items()}
    return {"base": options.base, "bf16": options.bf16, "tokens": tokens, "flops": flops, "losses": first, **counted}


def show(found: dict[str, Any], own: float, console: Console) -> None:
    """Print the table and how both compare."""
    precision = "bfloat16" if found["bf16"] else "float32"
    title = f"{found['base']}: a step of {found['tokens']} tokens, LoRA of rank {_RANK}, {precision}"
    columns = "who", "n", "CPU s a step, median", "least-most", "tokens/s", "of the machine's rate", "peak GiB"
    table = Table(*columns, title=title)
    taken = {name: [one["cpu_s"] for one in found[name]] for name in (HERE, PEER)}
    peaks = {name: max(one["peak_gib"] for one in found[name]) for name in (HERE, PEER)}
    for name, seconds in taken.items():
        middle = median(seconds)
        table.add_row(
            name,
            str(len(seconds)),
            f"{middle:.2f}",
            f"{min(seconds):.2f}-{max(seconds):.2f}",
            f"{found['tokens'] / middle:.0f}",
            f"{found['flops'] / middle / 1e9 / own:.0%} of {own:.0f} GFLOP/s",
            f"{peaks[name]:.2f}",
        )
    console.print(table)
    ratio, memory = median(taken[PEER]) / median(taken[HERE]), peaks[HERE] / peaks[PEER]
    console.print(f"a step {ratio:.2f} times as fast, {memory:.2f} of the memory; first losses {found['losses']}")


def main() -> None:
    """Take steps of both in turn and print a table, or JSON beside it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--base", default="smollm2")
    parser.add_argument("--python", type=Path, required=True, help="the interpreter that has TRL")
    parser.add_argument("--n", type=int, default=5, help="steps of each that count")
    parser.add_argument("--batch", type=int, default=4, help="rows a step")
    parser.add_argument("--length", type=int, default=391, help="tokens a row")
    parser.add_argument("--bf16", action="store_true", help="under bfloat16 autocast")
    parser.add_argument("--loud", action="store_true", help="show what both processes say")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    own, found = rate(), compare(options)
    if options.json:
        print(json.dumps({**found, "gflops": own}))
    show(found, own, Console(stderr=options.json))


if __name__ == "__main__":
    main()
