"""The nano base: what its text leaves out, how it is tokenised, made, resumed and shipped."""

import re
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rolecraft.benchmarks.toolworld import frames, names, sums, topics
from rolecraft.errors import NotFound
from rolecraft.nano import checks, corpus, language, pretrain, problems
from rolecraft.nano.tokenizer import VOCABULARY
from rolecraft.nano.tokenizer import train as train_tokenizer

WEIGHTS = Path(pretrain.__file__).parent / "weights"
TINY = pretrain.Settings(
    hidden_size=32,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=64,
    steps=6,
    rows=2,
    length=64,
    long_length=128,
    warmup=2,
    tokenizer_documents=1000,
    save_every=3,
)


@pytest.fixture(scope="module")
def text():
    random = Random(3)
    return "\n".join("".join(part for part, _ in corpus.document(random, 300)) for _ in range(4000))


def held_out_words():
    return {word for name in dir(topics) if name.startswith("HELD_OUT") for word in getattr(topics, name)}


def test_the_corpus_has_no_held_out_word(text):
    written = set(re.findall(r"[a-z]+", text.lower()))
    assert len(written) > 1000
    assert not written & held_out_words()


def test_the_corpus_has_no_held_out_name(text):
    ordinary = set(re.findall(r"[A-Za-z]+", " ".join(map(str, (*vars(language).values(), *vars(problems).values())))))
    ordinary |= {word for name, words in vars(topics).items() if name.isupper() for word in words}
    ordinary |= {word.capitalize() for word in ordinary} | {"Tools", "Functions", "Expression", "Python", "Code"}
    entities = set(re.findall(r"\b[A-Z][a-z]{3,}", text)) - ordinary
    assert len(entities) > 5000
    assert not [name for name in entities if names.held_out(name)]


def test_the_corpus_has_no_held_out_function_name(text):
    parts = {part for name in re.findall(r"\b[a-z]+_[a-z]+(?=\()", text) for part in name.split("_")}
    nonsense = parts - {word for words in (topics.TOPICS, topics.RELATIONS, topics.VERBS) for word in words}
    assert len(nonsense) > 1000
    assert not [part for part in nonsense if names.held_out(part)]


def test_the_corpus_has_no_held_out_phrasing(text):
    groups = [*vars(frames).values(), sums.SYMBOLIC, *(shape.frames for shape in sums.SHAPES)]
    held_out = [frame for group in groups if isinstance(group, frames.Frames) for frame in group.held_out]
    pieces = [piece.strip() for frame in held_out for piece in re.split(r"\{\w+\}", frame)]
    telling = {piece for piece in pieces if len(piece) >= 12}
    assert len(telling) > 20
    assert not [piece for piece in telling if piece in text]


def test_the_corpus_has_no_toolworld_trajectory(text):
    assert "Next: executor" not in text
    assert "Next: summarizer" not in text


def test_documents_depend_on_the_seed_alone():
    first, again, other = (corpus.document(Random(seed), 200) for seed in (5, 5, 6))
    assert first == again != other


def test_most_of_the_loss_is_on_answers():
    random = Random(1)
    parts = [part for _ in range(300) for part in corpus.document(random, 200)]
    weight = {True: 0.0, False: 0.0}
    for text, share in parts:
        weight[share >= 0.5] += len(text) * share
    assert weight[True] > weight[False]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(1, 1500)


def test_digits_are_single_tokens(tokenizer):
    assert [tokenizer.decode([i]) for i in tokenizer("3842").input_ids] == list("3842")


def test_a_name_has_the_same_tokens_after_a_space_and_in_quotes(tokenizer):
    name = tokenizer("Plalples").input_ids
    for text in ("I need Plalples.", '{"key":"Plalples"}', "name='Plalples'"):
        ids = tokenizer(text).input_ids
        assert any(ids[i : i + len(name)] == name for i in range(len(ids)))


def test_the_tokenizer_is_lossless_and_of_the_size_that_the_model_has(tokenizer):
    text = 'Ünïcode\n\t"x_y" 12.5 SELECT é 漢字 <|im_start|>'
    assert tokenizer.decode(tokenizer(text).input_ids) == text
    assert len(tokenizer) == 1024


def test_a_resumed_pretraining_makes_the_same_weights(tmp_path):
    pretrain.pretrain(TINY, tmp_path / "whole", say=False)
    with pytest.raises(KeyboardInterrupt):
        pretrain.pretrain(TINY, tmp_path / "broken", say=False, after_step=_interrupt_at(4))
    pretrain.pretrain(TINY, tmp_path / "broken", say=False)
    whole, broken = (AutoModelForCausalLM.from_pretrained(tmp_path / name) for name in ("whole", "broken"))
    for (name, left), right in zip(whole.state_dict().items(), broken.state_dict().values(), strict=True):
        assert torch.equal(left, right), name


def _interrupt_at(step):
    def interrupt(done):
        if done == step:
            raise KeyboardInterrupt

    return interrupt


def test_the_larger_size_has_three_million_parameters_and_the_same_tokenizer(tmp_path):
    few = {"steps": 2, "rows": 1, "length": 64, "long_length": 128, "warmup": 1, "save_every": 2}
    shape = pretrain.sized("larger", few)
    pretrain.pretrain(replace(shape, tokenizer_documents=1000), tmp_path / "base", say=False)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    assert 2_800_000 < model.num_parameters() < 3_200_000
    shipped = pretrain.sized("nano")
    assert (shape.seed, shape.tokenizer_documents) == (shipped.seed, shipped.tokenizer_documents)
    assert shape.hidden_size // shape.num_attention_heads == shipped.hidden_size // shipped.num_attention_heads
    assert len(AutoTokenizer.from_pretrained(tmp_path / "base")) == VOCABULARY


def test_a_size_that_there_is_not_is_refused():
    with pytest.raises(NotFound, match="there are nano, larger"):
        pretrain.sized("huge")


def test_two_processes_average_their_gradients(tmp_path):
    pretrain.launch(replace(TINY, steps=2), tmp_path / "out", processes=2)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.config.vocab_size == 1024
    assert AutoTokenizer.from_pretrained(tmp_path / "out").decode([0]) == "<|endoftext|>"


def test_the_shipped_folder_is_small_and_loads():
    assert sum(file.stat().st_size for file in WEIGHTS.iterdir()) < 6_000_000
    model = AutoModelForCausalLM.from_pretrained(WEIGHTS)
    assert model.config.max_position_embeddings == 1024


def test_the_shipped_base_copies_looks_up_and_chooses():
    model, tokenizer = AutoModelForCausalLM.from_pretrained(WEIGHTS), AutoTokenizer.from_pretrained(WEIGHTS)
    for check in checks.check(model, tokenizer, n=120):
        assert check.passed, check
