"""The model card beside a trained adapter: what it is, what it was trained on and how, and how to use it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from rolecraft.examples import Budget
from rolecraft.recipe import Recipe, recipe_to_dict

_BODY = """# {title}

An adapter ({method}) for `{base}`, trained with [Rolecraft](https://pypi.org/project/rolecraft/) to act as a
tool-calling agent in the team `{team}`: {roles}.

## Use

```bash
rolecraft chat --adapter {folder} --tools my_tools.py
```

The adapter was trained on prompts of the renderer `{renderer}`, and `contract.json` holds what they must look like:
`rolecraft` refuses to play it on others. {elsewhere}

```python
{imports}from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer

model = AutoPeftModelForCausalLM.from_pretrained("{folder}")
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


_ELSEWHERE = {"lora": "Without Rolecraft, it loads as any PEFT adapter:"}
_SERVED = """ vLLM takes both:

```bash
vllm serve {base} --enable-lora --lora-modules agent={folder} --chat-template {folder}/chat_template.jinja
```

Text Generation Inference takes a template from the model's folder alone (not tested here), as does whatever knows no
adapters: `rolecraft merge {folder} OUT` writes a whole model with the template and the weights folded in."""
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


def write(recipe: Recipe, facts: Facts) -> str:
    """Return the card as Markdown with the YAML front matter of the Hugging Face hub."""
    tokens = [
        f"| {speaker or 'context'} | {spent.tokens:,} | {spent.trained:,} |" for speaker, spent in facts.budget.items()
    ]
    losses = ", ".join(f"{value:.4g} ({name})" for name, value in facts.losses.items()) or "not logged"
    dropped = f" ({facts.dropped:,} replies left out: too long or cut)" if facts.dropped else ""
    method = str(recipe.adapter.name)
    body = _BODY.format(
        title=facts.folder.rstrip("/").rpartition("/")[2],
        method=method,
        base=recipe.model.base,
        team=recipe.team.preset,
        roles=", ".join(facts.speakers),
        folder=facts.folder,
        renderer=facts.renderer,
        elsewhere=_ELSEWHERE.get(method, _OWN_METHOD),
        first=facts.first,
        served=_SERVED.format(base=recipe.model.base, folder=facts.folder) if method in _ELSEWHERE else "",
        imports="" if method in _ELSEWHERE else f"import rolecraft.adapters.{method}\n",
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


def _front_matter(recipe: Recipe, facts: Facts) -> dict[str, Any]:
    return {
        "base_model": recipe.model.base,
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "tags": ["rolecraft", "tool-calling", "agent", str(recipe.adapter.name)],
        "versions": dict(facts.versions),
    }


def _data(recipe: Recipe) -> str:
    data = recipe.data
    if data.benchmark:
        return f"Reference solutions of the benchmark `{data.benchmark}`, split `{data.split}`, seed {data.seed}"
    if data.sources:
        told = (f"`{source.path}`, read as `{source.importer or 'openai'}`" for source in data.sources)
        return "Mixed, by weight and rules as below: " + "; ".join(told)
    return f"`{data.path}`, read as `{data.importer or 'openai'}`"
