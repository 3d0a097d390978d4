"""The model card beside a trained adapter: what it is, what it was trained on and how, and how to use it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from rolecraft.examples import Budget
from rolecraft.recipe import Recipe, recipe_to_dict

_BODY = """# {title}

{what}, trained with [Rolecraft](https://pypi.org/project/rolecraft/) to act as a
tool-calling agent in the team `{team}`: {roles}.

## Use

```bash
rolecraft chat --adapter {folder} --tools my_tools.py
```

It was trained on prompts of the renderer `{renderer}`, and `contract.json` holds what they must look like:
`rolecraft` refuses to play it on others. {elsewhere}

```python
{imports}
model = {loader}.from_pretrained("{folder}")
tokenizer = AutoTokenizer.from_pretrained("{folder}")
prompt = tokenizer.apply_chat_template(messages, tools=tools, add_generation_prompt=True, return_tensors="pt")
```

`chat_template.jinja` writes the prompts it was trained on, as `{first}` sees them: take the tokenizer from this folder,
not from the base.{served}

## Training data

{data}: {trajectories:,} trajectories, {examples:,} examples{dropped}. The loss is on replies only; what users, tools
and the system say is context.

| speaker | tokens | trained |
|---|---:|---:|
{tokens}

## Training

{steps:,} steps of {step_size} examples, {trainable:,} trainable parameters. Loss at the end, in nats per token:
{losses}.

```yaml
{settings}```

`settings.yaml` is the same recipe: `rolecraft train {folder}/settings.yaml` trains it again. `metrics.jsonl` has the
loss of every logged step.

## Limits

It has learned from the data above and nothing else: measure it on your own tasks with `rolecraft eval` before you rely
on it. It calls tools with arguments that can be wrong; let it call only what may be called by mistake.
"""


_PEFT = "from peft import AutoPeftModelForCausalLM\nfrom transformers import AutoTokenizer\n"
_TRANSFORMERS = "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
_WHOLE = "The folder is\na whole model, which needs no base. Without Rolecraft, it loads as any model of transformers:"
_ELSEWHERE = {"lora": "Without Rolecraft, it loads as any PEFT adapter:"}
_SERVED_WHOLE = """ vLLM takes both:

```bash
vllm serve {folder}
```

Its weights are in float32: `rolecraft merge {folder} OUT` writes them in bfloat16, without what the run left here."""
_SERVED = """ vLLM takes both:

```bash
vllm serve {base} --enable-lora --lora-modules agent={folder} --chat-template {folder}/chat_template.jinja
```

Text Generation Inference takes a template from the model's folder alone (not tested here), as does whatever knows no
adapters: `rolecraft merge {folder} OUT` writes a whole model with the template and the weights folded in."""
_PROMPT = """PEFT loads it once it knows the method, by the import below. Every sequence begins with the virtual tokens:
call the model with ids `[*virtual_tokens.ids(model), *prompt]` (`from rolecraft import virtual_tokens`)."""
_OWN_METHOD = "PEFT loads it once it knows the method, by the import below; a call takes `role_ids`, each token's role:"


@dataclass(frozen=True, slots=True)
class Facts:
    """What the card tells beside the recipe."""

    folder: str
    renderer: str
    speakers: tuple[str, ...]
    first: str
    trajectories: int
    examples: int
    dropped: int
    budget: Mapping[str | None, Budget]
    steps: int
    step_size: int
    trainable: int
    losses: Mapping[str, float]
    versions: Mapping[str, str]
    whole: bool = False


def write(recipe: Recipe, facts: Facts) -> str:
    """Return the card as Markdown with the YAML front matter of the Hugging Face hub."""
    tokens = [
        f"| {speaker or 'context'} | {spent.tokens:,} | {spent.trained:,} |" for speaker, spent in facts.budget.items()
    ]
    losses = ", ".join(f"{value:.4g} ({name})" for name, value in facts.losses.items()) or "not logged"
    dropped = f" ({facts.dropped:,} replies left out: too long or cut)" if facts.dropped else ""
    body = _BODY.format(
        **_loading(recipe, facts),
        title=facts.folder.rstrip("/").rpartition("/")[2],
        team=str(recipe.team.preset),
        roles=", ".join(facts.speakers),
        folder=facts.folder,
        renderer=facts.renderer,
        first=facts.first,
        data=_data(recipe),
        trajectories=facts.trajectories,
        examples=facts.examples,
        dropped=dropped,
        tokens="\n".join(tokens),
        steps=facts.steps,
        step_size=facts.step_size,
        trainable=facts.trainable,
        losses=losses,
        settings=yaml.safe_dump(recipe_to_dict(recipe), sort_keys=False, allow_unicode=True),
    )
    return f"---\n{yaml.safe_dump(_front_matter(recipe, facts), sort_keys=False)}---\n\n{body}"


def _loading(recipe: Recipe, facts: Facts) -> dict[str, str]:
    """Return what the card says of what the folder holds and how it is loaded and served."""
    method, base, folder = str(recipe.adapter.name), recipe.model.base, facts.folder
    if facts.whole:
        return {
            "what": f"A full tuning of `{base}`",
            "elsewhere": _WHOLE,
            "imports": _TRANSFORMERS,
            "loader": "AutoModelForCausalLM",
            "served": _SERVED_WHOLE.format(folder=folder),
        }
    known = method in _ELSEWHERE
    return {
        "what": f"An adapter ({method}) for `{base}`",
        "elsewhere": _PROMPT if method == "prompt" else _ELSEWHERE.get(method, _OWN_METHOD),
        "imports": _PEFT if known else f"import rolecraft.adapters.{method}\n{_PEFT}",
        "loader": "AutoPeftModelForCausalLM",
        "served": _SERVED.format(base=base, folder=folder) if known else "",
    }


def _front_matter(recipe: Recipe, facts: Facts) -> dict[str, Any]:
    return {
        "base_model": recipe.model.base,
        "library_name": "transformers" if facts.whole else "peft",
        "pipeline_tag": "text-generation",
        "tags": ["rolecraft", "tool-calling", "agent", str(recipe.adapter.name)],
        "versions": dict(facts.versions),
    }


def _data(recipe: Recipe) -> str:
    data = recipe.data
    if recipe.on_policy is not None:
        return (
            f"What the {recipe.on_policy.player} played of the benchmark `{data.benchmark}`, split `{data.split}`, "
            f"seed {data.seed}, scored token by token by the teacher `{recipe.on_policy.teacher}`"
        )
    if recipe.reinforcement is not None and recipe.reinforcement.recorded:
        return f"What an agent of somebody's own did with the policy, rewarded by it ({recipe.reinforcement.objective})"
    if recipe.reinforcement is not None:
        return (
            f"What the policy played of the benchmark `{data.benchmark}`, split `{data.split}`, seed {data.seed}, "
            f"rewarded in layers ({recipe.reinforcement.objective})"
        )
    if data.benchmark:
        return f"Reference solutions of the benchmark `{data.benchmark}`, split `{data.split}`, seed {data.seed}"
    if data.sources:
        told = (f"`{source.path}`, read as `{source.importer or 'openai'}`" for source in data.sources)
        return "Mixed, by weight and rules as below: " + "; ".join(told)
    return f"`{data.path}`, read as `{data.importer or 'openai'}`"
