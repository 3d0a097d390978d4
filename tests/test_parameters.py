"""MoRAgent's parameter counts, to the number, on configurations without weights (table 1 to 5 of arXiv 2512.21708)."""

import pytest
from transformers import LlamaConfig, Phi3Config, Qwen2Config

from rolecraft.train import count_parameters, find_recipe, load_recipe

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")

LLAMA = LlamaConfig(
    vocab_size=128256, hidden_size=2048, num_hidden_layers=16, num_attention_heads=32, num_key_value_heads=8,
    intermediate_size=8192, head_dim=64, tie_word_embeddings=True,
)  # fmt: skip
PHI = Phi3Config(
    vocab_size=32064, hidden_size=3072, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=32,
    intermediate_size=8192,
)  # fmt: skip
QWEN = Qwen2Config(
    vocab_size=151936, hidden_size=1536, num_hidden_layers=28, num_attention_heads=12, num_key_value_heads=2,
    intermediate_size=8960, tie_word_embeddings=True,
)  # fmt: skip
PANGU = LlamaConfig(
    vocab_size=153376, hidden_size=1536, num_hidden_layers=26, num_attention_heads=12, num_key_value_heads=6,
    intermediate_size=6144, head_dim=128,
)  # fmt: skip


def trainable(config, folder, *flags: str) -> int:
    config.save_pretrained(folder)
    return count_parameters(str(folder / "config.json"), load_recipe(find_recipe("mor"), flags))["trainable"]


@pytest.mark.parametrize(
    ("config", "count"),
    [(LLAMA, 162_398_208), (PHI, 360_120_320), (QWEN, 265_631_744), (PANGU, 202_395_648)],
    ids=["Llama-3.2-1B", "Phi-3.5-mini", "Qwen2.5-1.5B", "openPangu-1B"],
)
def test_the_papers_bases_get_the_papers_number_of_parameters(config, count, tmp_path):
    assert trainable(config, tmp_path) == count


@pytest.mark.parametrize(
    ("roles", "millions"), [((4, 4, 3), 127.6), ((5, 5, 4), 162.4), ((6, 6, 5), 197.2), ((7, 7, 6), 232.0)]
)
def test_the_sweep_over_loras_per_role_is_the_papers(roles, millions, tmp_path):
    names = ("reasoner", "executor", "summarizer")
    counts = ", ".join(f"{name}: {count}" for name, count in zip(names, roles, strict=True))
    active = ", ".join(f"{name}: {count - 2}" for name, count in zip(names, roles, strict=True))
    found = trainable(LLAMA, tmp_path, f"adapter.roles={{{counts}}}", f"adapter.top_k={{{active}}}")
    assert round(found / 1e6, 1) == millions
