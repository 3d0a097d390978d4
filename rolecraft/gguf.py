"""GGUF files: dequantised once into a folder that transformers loads, with a tokenizer that gives llama.cpp's ids.

Weights and configuration are read by transformers; the tokenizer is built here, since transformers splits text as one
family does, whatever the file names. Not covered: packing weights from the file's own blocks, files in several parts,
multimodal projectors, and pre-tokenizers that `_PRE_TOKENIZERS` lacks, which are refused.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, PreTrainedTokenizerFast
from transformers.utils import logging

from rolecraft.errors import NotFound
from rolecraft.store import atomic, cache, lock

SOURCE = "gguf.json"
"""Beside the dequantised weights: the path and sha256 of the file that they came from."""

_VERSION = 1  # of what a cache folder holds
_CONTROL, _USER_DEFINED = 3, 4  # token types
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace("{1,3}", "")
_PRE_TOKENIZERS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("gpt-2", "phi-2", "jina-es", "jina-de", "gigachat", "olmo"), (_GPT2,)),
    **dict.fromkeys(("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone"), (r"\p{N}", _GPT2)),
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3", "lfm2", "dbrx", "smaug-bpe"), (_LLAMA3,)),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "stablelm2", "hunyuan"), (_QWEN2,)),
}
"""By `tokenizer.ggml.pre`: the patterns that split text one after the other before its pieces are merged."""


def converted(path: Path) -> Path:
    """Return the folder of `path`'s dequantised model, made if it is not in the cache (see `store.cache`).

    Raises NotFound for a file that is no model which can be loaded.
    """
    digest = _sha256(path)
    folder = cache() / "gguf" / f"{path.stem}-{digest[:16]}-{_VERSION}"
    if not (folder / SOURCE).is_file():
        with lock(folder.with_name(f"{folder.name}.lock")):
            if not (folder / SOURCE).is_file():  # another process may have made it meanwhile
                _convert(path, digest, folder)
    return folder


def _sha256(path: Path) -> str:
    """Return the digest of the file; it is kept beside its size and time, since reading gigabytes takes seconds."""
    status = path.stat()
    known = cache() / "gguf" / "digests.json"
    key = f"{path.resolve()} {status.st_size} {status.st_mtime_ns}"
    try:
        kept: dict[str, str] = dict(json.loads(known.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        kept = {}
    if key not in kept:
        with path.open("rb") as file:
            kept[key] = hashlib.file_digest(file, "sha256").hexdigest()
        with atomic(known) as partial:
            partial.write_text(json.dumps(kept, indent=1), encoding="utf-8")
    return kept[key]


def _convert(path: Path, digest: str, folder: Path) -> None:
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        # transformers shows bars of its own on the error stream, which it was told to leave out.
        with Progress(console=Console(file=sys.stderr)) as bar, _quiet(), redirect_stderr(io.StringIO()):
            step = bar.add_task(f"dequantising {path.name}, once", total=3)
            tokenizer = read_tokenizer(path)
            bar.advance(step)
            model = AutoModelForCausalLM.from_pretrained(
                str(path.parent),
                gguf_file=path.name,
                dtype=torch.bfloat16,
                quantization_config=GgufConfig(dequantize=True),
            )
            bar.advance(step)
            _settle(model, tokenizer)
            model.save_pretrained(str(partial))
            tokenizer.save_pretrained(str(partial))
            bar.advance(step)
    except NotFound:
        raise
    except (ValueError, TypeError, LookupError, AttributeError, ImportError, RuntimeError, OSError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise NotFound(
            f"{str(path)!r} does not load as a causal language model: {reason}; give the folder of the original model"
        ) from error
    source = {"path": str(path.resolve()), "sha256": digest}
    (partial / SOURCE).write_text(json.dumps(source, indent=2) + "\n", encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def _settle(model: Any, tokenizer: Any) -> None:
    """Let the saved configuration tell the tokenizer's own end and padding tokens."""
    for config in (model.config, model.generation_config):
        config.eos_token_id, config.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id


@contextmanager
def _quiet() -> Iterator[None]:
    shown, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()


def read_tokenizer(path: Path) -> Any:
    """Return the tokenizer in a GGUF file's header; raises NotFound for a pre-tokenizer that is not known."""
    from gguf import GGUFReader  # an extra

    fields = GGUFReader(str(path)).fields

    def read(name: str, default: Any = None) -> Any:
        field = fields.get(f"tokenizer.{name}")
        return default if field is None else field.contents()

    if read("ggml.model") != "gpt2":  # SentencePiece, whose pieces carry their own splits
        return AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
    kind = read("ggml.pre", "default")
    if kind not in _PRE_TOKENIZERS:
        raise NotFound(
            f"{str(path)!r} splits text as {kind!r} does, which is not known; known: {', '.join(_PRE_TOKENIZERS)}. "
            "Give the folder of the original model"
        )
    tokens, types = read("ggml.tokens"), read("ggml.token_type")
    made = _byte_pairs(tokens, read("ggml.merges"), types, _PRE_TOKENIZERS[kind], kind in _IGNORE_MERGES)
    named = {
        f"{name}_token": tokens[number]
        for name, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"), ("unk", "unknown"))
        if (number := read(f"ggml.{key}_token_id")) is not None
    }
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, clean_up_tokenization_spaces=False, **named)
    tokenizer.chat_template = read("chat_template")
    return tokenizer


_IGNORE_MERGES = frozenset(name for name, patterns in _PRE_TOKENIZERS.items() if patterns == (_LLAMA3,))
"""Llama 3's own: a piece that is a token is that token, whatever its merges come to."""


def _byte_pairs(
    tokens: Sequence[str],
    merges: Sequence[str],
    types: Sequence[int],
    patterns: Sequence[str],
    ignore_merges: bool,
) -> Tokenizer:
    vocabulary = {token: number for number, token in enumerate(tokens)}
    pairs = [(first, second) for first, _, second in (merge.partition(" ") for merge in merges)]
    made = Tokenizer(models.BPE(vocabulary, pairs, ignore_merges=ignore_merges))
    splits: list[Any] = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in patterns]
    made.pre_tokenizer = pre_tokenizers.Sequence([*splits, pre_tokenizers.ByteLevel(False, use_regex=False)])
    made.decoder = decoders.ByteLevel()
    marks = [
        AddedToken(token, special=kind == _CONTROL, normalized=False)
        for token, kind in zip(tokens, types, strict=True)
        if kind in (_CONTROL, _USER_DEFINED)
    ]
    made.add_special_tokens([mark for mark in marks if mark.special])
    made.add_tokens([mark for mark in marks if not mark.special])
    return made
