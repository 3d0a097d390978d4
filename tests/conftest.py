"""Tokenizers trained on the spot: byte-level BPE with a family's special tokens, wrapped as transformers has them."""

from __future__ import annotations

import os
import signal

import public
import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

_WORDS = (
    "You are a helpful assistant. Tools: rank of one company debt of a company\n"
    "I need the debt for Plalples. I have the result. Next: executor. Next: summarizer. user system tool reasoner\n"
    '{"name": "read_debt", "arguments": {"key": "Plalples"}}\n{"name":"read_debt","args":{"key":"Plalples"}}\n'
    'type function description parameters properties object string required "}}\n'
    "<tool_response>\n3809\n</tool_response>"
)
_NANO_SPLIT = r"[A-Z][a-z]*| ?[a-z]+|\d|[^A-Za-z0-9\s]+|\s"
QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA_SPLIT = QWEN_SPLIT.replace(r"\p{N}|", r"\p{N}{1,3}|")


def pytest_configure() -> None:
    """Heed Ctrl-C, which a shell that starts tests in the background ignores, and let benchmarks find public data."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if public.FOLDER.is_dir():
        os.environ.setdefault("ROLECRAFT_DATA", str(public.FOLDER))


def train(split: str, special: list[str], markers: tuple[str, ...] = (), **config: str) -> PreTrainedTokenizerFast:
    """Return a byte-level tokenizer with tokens that are special and added `markers` that are not."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(split), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=480,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([_WORDS] * 4, trainer)
    tokenizer.add_tokens([AddedToken(marker, special=False, normalized=False) for marker in markers])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **config)


@pytest.fixture(scope="session")
def nano_tokenizer() -> PreTrainedTokenizerFast:
    """The nano base's kind: digits single, no space before a name, its renderer named in its config."""
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    return train(_NANO_SPLIT, special, pad_token=special[0], eos_token=special[2], rolecraft_renderer="nano")


@pytest.fixture(scope="session")
def hermes_tokenizer() -> PreTrainedTokenizerFast:
    """Qwen2.5's kind: ChatML tokens, call tags that are added tokens without being special; its renderer is named."""
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    markers = ("<tool_call>", "</tool_call>")
    named = {"pad_token": special[0], "eos_token": special[2], "rolecraft_renderer": "hermes"}
    return train(QWEN_SPLIT, special, markers, **named)


@pytest.fixture(scope="session")
def llama3_tokenizer() -> PreTrainedTokenizerFast:
    """Llama 3's kind: header tokens, digits in threes."""
    special = "<|begin_of_text|> <|end_of_text|> <|start_header_id|> <|end_header_id|> <|eom_id|> <|eot_id|>".split()
    return train(LLAMA_SPLIT, special, bos_token=special[0], eos_token=special[5], pad_token=special[1])


@pytest.fixture(scope="session")
def phi3_tokenizer() -> PreTrainedTokenizerFast:
    """Phi-3's kind: a token for each role, and no token for call tags."""
    special = ["<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
    return train(LLAMA_SPLIT, special, eos_token=special[0], pad_token=special[0])


@pytest.fixture(scope="session")
def mistral_tokenizer() -> PreTrainedTokenizerFast:
    """Mistral's kind since v13: a token for each part of a conversation."""
    return _mistral("[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[ARGS]", rolecraft_renderer="mistral")


@pytest.fixture(scope="session")
def mistral_nemo_tokenizer() -> PreTrainedTokenizerFast:
    """Mistral's kind of v3: no system block."""
    return _mistral(rolecraft_renderer="mistral_nemo")


def _mistral(*special: str, **named: str) -> PreTrainedTokenizerFast:
    parts = "<s> </s> [INST] [/INST] [AVAILABLE_TOOLS] [/AVAILABLE_TOOLS] [TOOL_CALLS] [TOOL_RESULTS] [/TOOL_RESULTS]"
    return train(QWEN_SPLIT, [*parts.split(), *special], eos_token="</s>", pad_token="<s>", **named)


@pytest.fixture(scope="session")
def phi4_mini_tokenizer() -> PreTrainedTokenizerFast:
    """Phi-4-mini's kind: a token for each role, and tokens around the list of tools and of calls."""
    roles = ["<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|tool|>", "<|/tool|>"]
    marks = ("<|tool_call|>", "<|/tool_call|>")
    return train(LLAMA_SPLIT, roles, marks, eos_token=roles[0], pad_token=roles[0], rolecraft_renderer="phi4_mini")
