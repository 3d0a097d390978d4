"""Refuses an adapter that does not fit its base, naming the key, shape or value that is wrong, before it is loaded.

PEFT and transformers load what fits, leave the rest as it was made, and warn at most. Not covered: whether the numbers
were trained on this base (the contract tells that), and the names of weights in architectures where transformers
converts them.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from peft import MODEL_TYPE_TO_PEFT_MODEL_MAPPING, PeftModel, get_peft_model_state_dict
from peft.utils import load_peft_weights
from safetensors import SafetensorError, safe_open
from transformers import AutoModelForCausalLM
from transformers.conversion_mapping import get_checkpoint_conversion_mapping

from rolecraft import matching
from rolecraft.errors import ContractError, SettingsError

UNREADABLE = (
    *(OSError, ValueError, TypeError, LookupError, AttributeError, ImportError, RuntimeError, OverflowError, EOFError),
    *(UnpicklingError, SafetensorError, MemoryError),
)
"""What transformers, PEFT, torch and safetensors raise for files that they cannot read; RecursionError among them."""

_FILES = ("adapter_model.safetensors", "adapter_model.bin")
_EMBEDDINGS = (".embed_tokens", ".lm_head")
_PATTERNS = ("target_modules", "exclude_modules", "modules_to_save", "layers_pattern", "rank_pattern", "alpha_pattern")
"""The fields of PEFT's configurations that are matched against layers' names."""


def require_fit(adapter: Path, model: Any, config: Any) -> None:
    """Raise ContractError unless the weights in `adapter` are all that PEFT's `config` asks for on the base `model`.

    A missing, unexpected or mis-shaped tensor is told by its key with what was found and what was wanted, and one that
    holds NaN or infinity by its key. `model` and `config` are left as they are.
    """
    file = next((adapter / name for name in _FILES if (adapter / name).is_file()), None)
    if file is None:
        raise ContractError(f"{str(adapter)!r} holds no weights ({' or '.join(_FILES)}); copy the whole folder again")
    found = _read(file)
    wrong = _wrong_value(found.items())
    if wrong is None and get_checkpoint_conversion_mapping(model.config.model_type) is None:
        wrong = _wrong_names(found, _wanted(model, config, file), "that adapter_config.json asks for on this base")
    if wrong is not None:
        raise ContractError(
            f"{file} does not fit the model: {wrong}; restore the folder as it was saved, load it on the base that it "
            "was tuned on, or tune it again"
        )


def require_whole_fit(adapter: Path, model: Any) -> None:
    """Raise ContractError, as `require_fit` does, unless the folder's weights are all those of `model`.

    `model` may be on the meta device. Of tied weights, which are saved once, one has to be there.
    """
    files = sorted(adapter.glob("model*.safetensors"))
    if not files:
        raise ContractError(f"{str(adapter)!r} holds no weights (model.safetensors); copy the whole folder again")
    found: dict[str, torch.Tensor] = {}
    try:
        wrong = _wrong_value(_told(_tensors(files), found))
    except UNREADABLE as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ContractError(
            f"the weights in {str(adapter)!r} cannot be read ({reason}); copy them again, or tune it again"
        ) from error
    if wrong is None and get_checkpoint_conversion_mapping(model.config.model_type) is None:
        wanted = dict(model.named_parameters())
        known = set(model.state_dict())
        extra = {key: one for key, one in found.items() if key not in known}
        kept = {key: one for key, one in found.items() if key in wanted}
        wrong = _wrong_names({**kept, **extra}, wanted, "of the model that config.json tells")
    if wrong is not None:
        raise ContractError(
            f"the weights in {str(adapter)!r} do not fit the model: {wrong}; restore the folder as it was saved, or "
            "tune it again"
        )


def _tensors(files: Iterable[Path]) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the tensors of several files one by one, so that a whole model is never held twice."""
    for file in files:
        with safe_open(file, framework="pt") as opened:
            for key in opened.keys():  # noqa: SIM118  # a file, not a mapping
                yield key, opened.get_tensor(key)


def _told(
    tensors: Iterable[tuple[str, torch.Tensor]], shapes: dict[str, torch.Tensor]
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the tensors, and note each one's shape and type."""
    for key, tensor in tensors:
        shapes[key] = torch.empty_like(tensor, device="meta")
        yield key, tensor


def _read(file: Path) -> dict[str, torch.Tensor]:
    try:
        found = load_peft_weights(str(file.parent), device="cpu")
    except UNREADABLE as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ContractError(f"{file} cannot be read ({reason}); copy it again, or tune the adapter again") from error
    if not isinstance(found, dict) or not all(isinstance(one, torch.Tensor) for one in found.values()):
        raise ContractError(f"{file} holds other things than tensors by name; tune the adapter again")
    return found


def _wrong_value(found: Iterable[tuple[str, torch.Tensor]]) -> str | None:
    for key, tensor in found:
        if tensor.is_floating_point():
            bad = int((~torch.isfinite(tensor.float())).sum())
            if bad:
                return f"{key!r} holds {bad} of {tensor.numel()} numbers that are NaN or infinite"
    return None


def _wrong_names(found: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor], whose: str) -> str | None:
    missing = [key for key in wanted if key not in found]
    if missing:
        return f"{_first(missing)} missing, of shape {list(wanted[missing[0]].shape)}"
    unexpected = [key for key in found if key not in wanted and not _is_embedding(key)]
    if unexpected:
        shape = list(found[unexpected[0]].shape)
        return f"{_first(unexpected)} of no part {whose}, of shape {shape}"
    for key, one in wanted.items():
        if found[key].shape != one.shape:
            return f"{key!r} has the shape {list(found[key].shape)}, and {list(one.shape)} is wanted"
        if one.is_floating_point() and not found[key].is_floating_point():
            return f"{key!r} holds {found[key].dtype}, and {one.dtype} is wanted"
    return None


def _is_embedding(key: str) -> bool:
    """Tell whether PEFT saved a layer of the base beside an adapter, which it does where that layer is adapted too."""
    return key.removesuffix(".weight").removesuffix(".base_layer").endswith(_EMBEDDINGS)


def _first(keys: list[str]) -> str:
    return f"{keys[0]!r} is" if len(keys) == 1 else f"{keys[0]!r} and {len(keys) - 1} more keys are"


def _wanted(model: Any, config: Any, file: Path) -> dict[str, torch.Tensor]:
    """Return what a fresh adapter would save, by name; on the meta device, so that no rank takes memory."""
    asked = copy.deepcopy(config)
    asked.inference_mode = True
    if hasattr(asked, "init_lora_weights"):
        asked.init_lora_weights = True  # others decompose the base's weights, and here are none
    kind = MODEL_TYPE_TO_PEFT_MODEL_MAPPING.get(asked.task_type, PeftModel)
    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they come again when the adapter is put on in earnest
            empty = AutoModelForCausalLM.from_config(model.config)
            matching.require_quick(_patterns(asked), [name for name, _ in empty.named_modules()])
            wanted: dict[str, torch.Tensor] = get_peft_model_state_dict(kind(empty, asked), save_embedding_layers=False)
    except SettingsError as error:
        raise ContractError(f"{file.with_name('adapter_config.json')}: {error}") from error
    except UNREADABLE as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ContractError(
            f"the adapter in {str(file.parent)!r} does not fit the model: {reason}; use the base that it was tuned on"
        ) from error
    return wanted


def _patterns(config: Any) -> dict[str, Any]:
    return {name: getattr(config, name, None) for name in _PATTERNS}
