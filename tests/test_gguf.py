"""A GGUF file becomes, once, a folder with the same weights and with the tokenizer that its header names."""

from __future__ import annotations

import json

import gguf as format_of_files
import numpy
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from rolecraft import bases, gguf, model
from rolecraft.errors import NotFound

CORPUS = ["the debt of Plalples is 3809 and of Ro 12, in 2024", '{"name": "read_debt", "arguments": {"key": "a"}}'] * 3
MARKS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEXT = "the debt of Ro\n\n is 12345, né 日本 <|im_end|>"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ROLECRAFT_CACHE", str(tmp_path / "cache"))


def byte_pairs() -> Tokenizer:
    """Return a trained byte-level tokenizer that splits digits one by one, as SmolLM's does."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=list(MARKS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(CORPUS, trainer)
    return made


def write(path, pre="smollm", embedding: float | None = None):
    """Write a Llama of one layer with random weights and the tokenizer above."""
    tokenizer = byte_pairs()
    told = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(told["vocab"], key=told["vocab"].__getitem__)
    writer = format_of_files.GGUFWriter(str(path), "llama")
    writer.add_context_length(128)
    writer.add_embedding_length(32)
    writer.add_block_count(1)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in MARKS else 1 for token in tokens])
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in told["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template("{% for m in messages %}{{ m.content }}{% endfor %}")
    draw = numpy.random.default_rng(0)
    shapes = {"token_embd": (len(tokens), 32), "blk.0.attn_q": (32, 32), "blk.0.attn_k": (16, 32)}
    shapes |= {"blk.0.attn_v": (16, 32), "blk.0.attn_output": (32, 32), "blk.0.ffn_gate": (64, 32)}
    shapes |= {"blk.0.ffn_up": (64, 32), "blk.0.ffn_down": (32, 64)}
    shapes |= {"blk.0.attn_norm": (32,), "blk.0.ffn_norm": (32,), "output_norm": (32,)}
    for name, shape in shapes.items():
        values = draw.normal(size=shape).astype(numpy.float32)
        if name == "token_embd" and embedding is not None:
            values.fill(embedding)
        writer.add_tensor(f"{name}.weight", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tokenizer


def test_a_file_is_dequantised_once_and_says_where_it_came_from(tmp_path):
    path = tmp_path / "small.gguf"
    write(path)
    folder = gguf.converted(path)
    told = json.loads((folder / gguf.SOURCE).read_text())
    assert told["path"] == str(path)
    assert len(told["sha256"]) == 64
    before = (folder / "model.safetensors").stat().st_mtime_ns
    assert gguf.converted(path) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == before


def test_the_weights_are_those_of_the_file(tmp_path):
    path = tmp_path / "small.gguf"
    write(path, embedding=0.5)
    loaded = model.load(str(path), renderer="hermes")
    assert torch.unique(loaded.model.get_input_embeddings().weight).tolist() == [0.5]
    assert loaded.model.config.tie_word_embeddings
    assert loaded.context == 128


def test_the_tokenizer_splits_text_as_the_file_says(tmp_path):
    path = tmp_path / "small.gguf"
    expected = write(path)
    tokenizer = gguf.read_tokenizer(path)
    ids = tokenizer.encode(TEXT, add_special_tokens=False)
    assert ids == expected.encode(TEXT, add_special_tokens=False).ids
    assert tokenizer.decode(ids) == TEXT
    assert (tokenizer.eos_token, tokenizer.bos_token) == ("<|im_end|>", "<|im_start|>")
    assert "m.content" in tokenizer.chat_template


def test_digits_are_split_as_another_family_does_under_its_name(tmp_path):
    ids = {}
    for kind in ("smollm", "llama-bpe"):
        write(tmp_path / f"{kind}.gguf", kind)
        ids[kind] = gguf.read_tokenizer(tmp_path / f"{kind}.gguf").encode("12 12 12345", add_special_tokens=False)
    assert len(ids["smollm"]) >= len(ids["llama-bpe"])


def test_a_way_of_splitting_that_is_not_known_is_refused_by_name(tmp_path):
    write(tmp_path / "odd.gguf", "a-new-one")
    with pytest.raises(NotFound, match="splits text as 'a-new-one' does, which is not known; known: gpt-2"):
        gguf.converted(tmp_path / "odd.gguf")


def test_a_file_that_is_cut_short_is_refused_and_leaves_nothing(tmp_path):
    write(tmp_path / "whole.gguf")
    path = tmp_path / "cut.gguf"
    path.write_bytes((tmp_path / "whole.gguf").read_bytes()[:-5000])
    with pytest.raises(NotFound, match=r"cut\.gguf' does not load as a causal language model"):
        gguf.converted(path)
    assert [found.name for found in (tmp_path / "cache" / "gguf").iterdir()] == ["digests.json"]


@pytest.mark.parametrize("content", [b"", b"GGU", b"PK\3\4 something else"])
def test_another_file_is_told_before_torch_is_needed(tmp_path, content):
    path = tmp_path / "other.gguf"
    path.write_bytes(content)
    with pytest.raises(NotFound, match="is no GGUF file"):
        bases.find(str(path))


def test_a_missing_file_is_told():
    with pytest.raises(NotFound, match=r"no file 'nowhere\.gguf'"):
        bases.find("nowhere.gguf")
