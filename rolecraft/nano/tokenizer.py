"""Trains nano's tokenizer: byte-level BPE that gives a name the same tokens in prose, in JSON and in SQL."""

from __future__ import annotations

from random import Random

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from rolecraft.nano import corpus, language

VOCABULARY = 1024
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")

_PATTERN = r"[A-Z]{2,}(?![a-z])|[A-Z][a-z]*| ?[a-z]+|\d|[^A-Za-z0-9\s]+|\s"
"""Digits single, words in capitals whole; a capitalised name never merges with the space before it, so that it is the
same tokens after a space as after a quote."""

_CHAT = (
    *language.ASKERS,
    *language.SPEAKERS,
    "I need the result. Use:python(code). Next: executor. I have the result. Next: summarizer.",
    "No tool fits. It failed. The answer is",
    '{"name":"sql","args":{"query":"SELECT name FROM","code":"print("}}',
    "error: no such tool. error: service is down",
)


def train(seed: int, documents: int = 20_000) -> PreTrainedTokenizerFast:
    """Return a tokenizer of 1,024 tokens trained on `documents` synthetic documents."""
    random = Random(seed)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = (_text(random) for _ in range(documents))
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=SPECIALS[0],
        eos_token=SPECIALS[2],
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
        rolecraft_renderer="nano",
    )


def _text(random: Random) -> str:
    """Return a document, or now and then common words: a chat's own words deserve tokens of their own."""
    if random.random() < 0.2:
        return f"{random.choice(_CHAT)}\n{' '.join(language.word(random) for _ in range(20))}"
    text = "".join(part for part, _ in corpus.document(random, 160))
    for special in SPECIALS:
        text = text.replace(special, "\n")
    return text
