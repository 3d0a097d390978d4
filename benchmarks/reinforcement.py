"""A GRPO step of ours beside TRL's GRPOTrainer: the same weights, tool and prompts, 16 rollouts with the tool executed.

    make .venv-trl/ready
    OMP_NUM_THREADS=1 python benchmarks/reinforcement.py --base nano --python .venv-trl/bin/python --json

The base is first taught a little (`--start FOLDER` keeps it), so that it calls the tool; both then go on from these
weights with a LoRA of the same size, one step each in turn. A step is rollouts, tool calls, rewards and one move of the
optimizer. Seconds are of the processor, for wall time would measure the machine's other work as well; tokens are those
after the prompt, what the tool said among them. This file is also the benchmark that is played. Not covered: vLLM.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import peer
import torch
import transformers
from rich.console import Console
from rich.table import Table

from rolecraft import model, objectives
from rolecraft.recipe import Recipe, read_recipe
from rolecraft.renderers import Renderer
from rolecraft.tools import Toolbox, tool
from rolecraft.train import policy_loop, reinforce
from rolecraft.train.policy_state import begin
from rolecraft.train.rollouts import Row
from rolecraft.train.tally import Tally
from rolecraft.types import Environment, Message, Task, ToolCall, Trajectory, Verdict

FORMAT = "hermes"
"""Word for word the template of Qwen2.5, which TRL knows how to read."""
GROUP, RANK, REPLY, WHOLE = 8, 8, 48, 128
NAMES = (
    "Ada",
    "Ben",
    "Cleo",
    "Dan",
    "Eve",
    "Finn",
    "Gus",
    "Hal",
    "Ida",
    "Jon",
    "Kim",
    "Leo",
    "Mia",
    "Ned",
    "Ora",
    "Pia",
)

_TRL = '''
import json, sys, time
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer
from trl.chat_template_utils import qwen2_5_chat_template

told = json.loads(sys.argv[1])
seen = {"tokens": 0, "calls": 0}

def code_of(name: str):
    """Look up the code of a name.

    Args:
        name: The name.
    """
    seen["calls"] += 1
    return str(sum(name.encode()) % 900 + 100)

def reward(prompts, completions, completion_ids, code, **_):
    seen["tokens"] += sum(map(len, completion_ids))
    last = [one[-1]["content"] or "" if one else "" for one in completions]
    return [float(right in said) for right, said in zip(code, last)]

class Turns(TrainerCallback):
    """Waits for its turn before each step, and tells what the step took."""

    def on_step_begin(self, args, state, control, **_):
        sys.stdin.readline()
        seen.update(tokens=0, calls=0)
        self.began = time.process_time(), time.monotonic()

    def on_step_end(self, args, state, control, **_):
        taken = {"cpu_s": time.process_time() - self.began[0], "wall_s": time.monotonic() - self.began[1]}
        print("step " + json.dumps({**taken, **seen}), flush=True)

tokenizer = AutoTokenizer.from_pretrained(told["folder"])
tokenizer.chat_template = qwen2_5_chat_template
tokenizer.eos_token, tokenizer.pad_token = "<|im_end|>", "<|endoftext|>"
rows = [{"prompt": [{"role": "user", "content": one["question"]}], "code": one["code"]} for one in told["tasks"]]
whole = told["tasks_a_step"] * told["group"]
trainer = GRPOTrainer(
    told["folder"], reward, tools=[code_of], processing_class=tokenizer, train_dataset=Dataset.from_list(rows),
    peft_config=LoraConfig(r=told["rank"], lora_alpha=2 * told["rank"], target_modules="all-linear"),
    callbacks=[Turns()],
    args=GRPOConfig(
        output_dir=told["output"], use_cpu=True, bf16=False, gradient_checkpointing=False, report_to=[],
        per_device_train_batch_size=whole, num_generations=told["group"], max_steps=told["steps"], seed=0,
        max_completion_length=told["whole"], temperature=1.0, top_k=0, learning_rate=1e-5, beta=0.0, loss_type="dapo",
        epsilon=0.2, epsilon_high=0.28, save_strategy="no", logging_strategy="no", disable_tqdm=True,
        model_init_kwargs={"dtype": "float32"},
    ),
)
asked = tokenizer.apply_chat_template(
    rows[0]["prompt"], tools=[code_of], add_generation_prompt=True, tokenize=True, return_dict=False
)
print("ready " + json.dumps({"prompt": list(asked)}), flush=True)
trainer.train()
'''


@dataclass(frozen=True, slots=True)
class Settings:
    """The tasks: whose code is asked."""

    size: int = 4


@tool
def code_of(name: str) -> str:
    """Look up the code of a name.

    Args:
        name: The name.
    """
    return code(name)


def code(name: str) -> str:
    """Return what the tool says."""
    return str(sum(name.encode()) % 900 + 100)


def tasks(settings: Settings, split: str, seed: int) -> tuple[Task, ...]:
    """Return questions for codes."""
    names = [f"{first}{last.lower()}" for first in NAMES for last in NAMES]
    random.Random(f"{split}/{seed}").shuffle(names)
    specs = Toolbox([code_of]).specs
    asked = [names[place % len(names)] for place in range(settings.size)]
    return tuple(
        Task(f"code-{place}", (Message("user", question(name)),), specs, {"code": code(name)})
        for place, name in enumerate(asked)
    )


def question(name: str) -> str:
    """Return what is asked."""
    return f"What is the code of {name}?"


def open(task: Task) -> Environment:  # a benchmark's own name for it
    """Return a task's world."""

    def judge(trajectory: Trajectory) -> Verdict:
        last = trajectory.messages[-1]
        return Verdict(float(last.role == "assistant" and str(task.reference["code"]) in last.content))

    return Environment(task, Toolbox([code_of]), judge)


def lesson(renderer: Renderer, name: str) -> tuple[list[int], list[float]]:
    """Return a solved task's ids, and which of them are the assistant's."""
    call = ToolCall("code_of", {"name": name}, "call_0")
    messages = (
        Message("user", question(name)),
        Message("assistant", "", tool_calls=(call,)),
        Message("tool", code(name), tool_call_id="call_0", name="code_of"),
        Message("assistant", f"The code of {name} is {code(name)}."),
    )
    rendered = renderer.render(messages, Toolbox([code_of]).specs)
    return list(rendered.ids), list(rendered.weights)


def teach(base: str, folder: Path, steps: int, batch: int, rate: float) -> None:
    """Write the base, taught by solved tasks to call the tool, with its tokenizer."""
    loaded = model.load(base, renderer=FORMAT)
    net, draw = loaded.model.train(), random.Random(0)
    optimizer = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=0.0)
    schedule = transformers.get_scheduler("linear", optimizer, max(1, steps // 10), steps)
    names = [f"{first}{last.lower()}" for first in NAMES for last in NAMES]
    for step in range(steps):
        rows = [lesson(loaded.renderer, name) for name in draw.sample(names, batch)]
        width = max(len(ids) for ids, _ in rows)
        ids_BT = torch.tensor([ids + [0] * (width - len(ids)) for ids, _ in rows])
        weights_BT = torch.tensor([weights + [0.0] * (width - len(weights)) for _, weights in rows])
        keep_BT, targets_N, _ = objectives.next_token_targets(ids_BT, weights_BT)
        with objectives.only_logits_at(net.get_output_embeddings(), keep_BT):
            logits = net(input_ids=ids_BT, use_cache=False).logits
        loss = objectives.token_losses(objectives.pick_logits(logits, keep_BT), targets_N).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if (step + 1) % max(1, steps // 5) == 0:
            print(f"taught {step + 1}/{steps}: loss {float(loss.detach()):.3f}", file=sys.stderr, flush=True)
    end = loaded.tokenizer.convert_tokens_to_ids("<|im_end|>")
    net.generation_config.eos_token_id = net.config.eos_token_id = end
    net.eval().save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)


def recipe_of(folder: Path, options: argparse.Namespace, batch: int | None = None) -> Recipe:
    """Return GRPO as both are told it; `batch` episodes are computed at once, or all."""
    whole = options.tasks * GROUP
    return read_recipe(
        {
            "model": {"base": str(folder), "renderer": FORMAT},
            "team": {"preset": "single", "instructions": False},
            "data": {"benchmark": Path(__file__), "seed": 1, "max_length": 1024},
            "adapter": {"name": "lora", "r": RANK, "lora_alpha": 2 * RANK, "lora_dropout": 0.0},
            "training": {
                "max_steps": 2 * options.n + 2,
                "per_device_train_batch_size": batch or whole,
                "learning_rate": 1e-5,
                "seed": 0,
            },
            "reinforcement": {
                "tasks": options.tasks,
                "group": GROUP,
                "max_turns": 3,
                "max_tokens": REPLY,
                "normalise": "sum",
                "reward": {"format": 0.0, "calls": 0.0, "task": 1.0, "efficiency": 0.0},
                "share_prompts": not options.apart,
            },
        }
    )


@contextmanager
def ours(folder: Path, options: argparse.Namespace) -> Iterator[Any]:
    """Yield what takes a step and tells of it, and the first prompt's ids."""
    recipe = recipe_of(folder, options)
    policy, players = reinforce.load(recipe)
    work = reinforce.Work(recipe, policy, players, folder, lambda *_: None)
    progress, world = begin(policy.model, recipe.training), policy_loop.tasks(work)
    rows: list[Row] = []
    inner = policy_loop.rows

    def noted(*arguments: Any) -> list[Row]:
        rows[:] = inner(*arguments)
        return list(rows)

    with policy_loop.engine(policy, work) as player:

        def step() -> dict[str, float]:
            tally = Tally()
            began = time.process_time(), time.monotonic()
            reinforce._step(work, progress, world, player, tally)
            taken = {"cpu_s": time.process_time() - began[0], "wall_s": time.monotonic() - began[1]}
            whole = options.tasks * GROUP
            tokens = sum(len(row.ids) - row.chosen.index(True) for row in rows)
            return {**taken, "tokens": tokens, "calls": tally.means()["play/calls"] * whole}

        policy_loop.rows = noted  # type: ignore[assignment]  # what a step plays is told nowhere else
        try:
            first = policy.renderer.opening(world.tasks[0].messages, world.tasks[0].tools, "assistant")
            yield step, list(first.ids), world
        finally:
            policy_loop.rows = inner


@contextmanager
def theirs(folder: Path, world: Any, options: argparse.Namespace) -> Iterator[Any]:
    """Yield the same of TRL, in its own interpreter."""
    asked = [{"question": task.messages[0].content, "code": task.reference["code"]} for task in world.tasks]
    told = {
        "folder": str(folder),
        "output": str(folder / "trl"),
        "tasks": asked,
        "tasks_a_step": options.tasks,
        "group": GROUP,
        "rank": RANK,
        "whole": WHOLE,
        "steps": options.n + 1,
    }
    with peer.running(str(options.python), _TRL, told, loud=options.loud) as other:
        yield other.step, other.read("ready")["prompt"]


def main() -> None:
    """Take steps of both in turn and print a table, or JSON."""
    options = _options()
    model.limit_threads()
    transformers.logging.set_verbosity_error()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as place:
        folder = options.start or Path(place) / "start"
        if not (folder / "config.json").exists():
            small = options.base == "nano"
            teach(options.base, folder, *((32, 4, 3e-3) if small else (12, 2, 1e-4)))
        found = compare(folder, options)
    if options.json:
        print(json.dumps(found))
    show(found, Console(stderr=options.json))


def compare(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Return the steps of both, the first of each left out: it compiles and fills caches."""
    steps: dict[str, list[dict[str, float]]] = {"rolecraft": [], "TRL": []}
    with ours(folder, options) as (mine, prompt, world), theirs(folder, world, options) as (other, known):
        if prompt != known:
            raise SystemExit(f"the prompts differ: ours has {len(prompt)} tokens, TRL's {len(known)}")
        for number in range(options.n + 1):
            for name, step in (("rolecraft", mine), ("TRL", other)):
                told = step()
                print(f"{name} step {number}: {told}", file=sys.stderr, flush=True)
                steps[name] += [told] if number else []
    return {"base": options.base, "prompt_tokens": len(prompt), "rollouts": options.tasks * GROUP, "steps": steps}


def show(found: dict[str, Any], console: Console) -> None:
    """Print the table and how many times as fast ours is."""
    title = f"{found['base']}: {found['rollouts']} rollouts a step, {found['prompt_tokens']} tokens of a prompt"
    table = Table("who", "n", "CPU s a step, median", "least-most", "wall s", "tokens/s", "calls a step", title=title)
    paces, rates = {}, {}
    for name, steps in found["steps"].items():
        taken = [one["cpu_s"] for one in steps]
        paces[name], rates[name] = median(taken), sum(one["tokens"] for one in steps) / sum(taken)
        calls, wall = (median(one[key] for one in steps) for key in ("calls", "wall_s"))
        spread = f"{min(taken):.2f}-{max(taken):.2f}"
        table.add_row(
            name, str(len(steps)), f"{paces[name]:.2f}", spread, f"{wall:.2f}", f"{rates[name]:.1f}", f"{calls:.0f}"
        )
    console.print(table)
    console.print(
        f"a step {paces['TRL'] / paces['rolecraft']:.2f} times as fast, {rates['rolecraft'] / rates['TRL']:.2f} times "
        "the tokens a second"
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--base", default="nano")
    parser.add_argument("--python", type=Path, required=True, help="the interpreter that has TRL")
    parser.add_argument("--n", type=int, default=5, help="steps of each that count")
    parser.add_argument("--tasks", type=int, default=2, help=f"tasks a step, {GROUP} tries at each")
    parser.add_argument("--start", type=Path, help="a folder that keeps the base as it was taught")
    parser.add_argument("--apart", action="store_true", help="compute each row's prompt by itself (share_prompts off)")
    parser.add_argument("--loud", action="store_true", help="show what TRL's process says")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
