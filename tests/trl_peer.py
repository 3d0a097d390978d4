"""Run by an interpreter that has TRL: reads cases from a file, writes what its GRPOTrainer makes of them.

`python trl_peer.py CASES ANSWERS`. A case with `new` is a loss of given log-probabilities, answered by the loss of each
of its parts and the gradient; one with `rewards` is answered by the advantages of so many groups of tries.
"""

from __future__ import annotations

import sys
import tempfile
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import GRPOConfig, GRPOTrainer

WORDS = {word: place for place, word in enumerate(("<pad>", "<end>", "<unk>", *map(str, range(29))))}


def trainer_of(told: dict[str, Any], rewards: torch.Tensor | None = None) -> GRPOTrainer:
    """A trainer of a model of two layers; each reward function tells its column, try by try."""
    made = Tokenizer(models.WordLevel(WORDS, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="<end>", unk_token="<unk>")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=1,
    )
    columns = [[0.0]] if rewards is None else rewards.T.tolist()

    def paid(column: list[float], place: int) -> Any:
        def reward(completions: list[str], **_: Any) -> list[float]:
            return column[: len(completions)]

        reward.__name__ = f"reward{place}"
        return reward

    arguments = GRPOConfig(
        output_dir=tempfile.mkdtemp(),
        use_cpu=True,
        bf16=False,
        report_to=[],
        gradient_checkpointing=False,
        **{"max_completion_length": 10, **told},
    )
    folder = tempfile.mkdtemp()  # a reference model is read from where the model lies
    LlamaForCausalLM(config).save_pretrained(folder)
    return GRPOTrainer(
        LlamaForCausalLM.from_pretrained(folder),
        [paid(column, place) for place, column in enumerate(columns)],
        args=arguments,
        train_dataset=Dataset.from_list([{"prompt": str(place)} for place in range(8)]),
        processing_class=tokenizer,
    )


def loss(case: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The losses of the case's parts, as the steps of one window of accumulation, and the gradient of their sum."""
    parts = case["parts"]
    told = {"per_device_train_batch_size": 4, "num_generations": 2, "gradient_accumulation_steps": parts}
    trainer = trainer_of({**told, **case["told"]})
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = parts
    new = case["new"].clone().requires_grad_()
    losses = []
    for rows in torch.arange(len(new)).chunk(parts):
        mask = case["mask"][rows]
        held = new[rows]
        inputs = {
            "prompt_ids": torch.zeros(len(rows), 1, dtype=torch.long),
            "prompt_mask": torch.ones(len(rows), 1, dtype=torch.long),
            "completion_ids": torch.zeros(mask.shape, dtype=torch.long),
            "completion_mask": torch.ones(mask.shape, dtype=torch.long),
            "tool_mask": mask.long(),
            "advantages": case["advantages"][rows],
            "old_per_token_logps": case["old"][rows],
            "ref_per_token_logps": case["reference"][rows],
            "num_items_in_batch": case["mask"].sum(),
        }
        trainer._get_per_token_logps_and_entropies = lambda *_, held=held, **__: (held, torch.zeros_like(held), None)
        losses.append(trainer._compute_loss(trainer.model, inputs))
    torch.stack(losses).sum().backward()
    return {"losses": torch.stack(losses).detach(), "gradient": new.grad}


def advantages(case: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The advantages of a real step's tries, each with its row of rewards."""
    rewards, size = case["rewards"], case["group"]
    told = {"per_device_train_batch_size": len(rewards), "num_generations": size, "max_completion_length": 2}
    trainer = trainer_of({**told, **case["told"]}, rewards)
    asked = [{"prompt": str(place // size)} for place in range(len(rewards))]
    return {"advantages": trainer._generate_and_score_completions(asked)["advantages"]}


if __name__ == "__main__":
    asked = torch.load(sys.argv[1], weights_only=True)
    torch.save([loss(case) if "new" in case else advantages(case) for case in asked], sys.argv[2])
