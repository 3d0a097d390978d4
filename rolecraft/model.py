"""Loads a base, its tokenizer and an adapter; refuses an adapter that was tuned on other prompts or another base.

Not covered: downloading with credentials, quantised weights, and code that comes with a model (it is never run).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub import errors as hub_errors
from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from rolecraft import catalog, renderers
from rolecraft.errors import ContractError, NotFound, SettingsError
from rolecraft.renderers import Renderer
from rolecraft.types import Message, ToolCall, ToolSpec

Dtype = Literal["float32", "bfloat16", "float16"]

_CONTRACT = "contract.json"
_NANO = Path(__file__).parent / "nano" / "weights"
_OWN = "own"
_SHAPE = (
    "model_type",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
)


@dataclass(frozen=True, slots=True)
class Contract:
    """What an adapter was trained on and must be played on; it lies beside the adapter as `contract.json`.

    `golden` is the ids of a fixed conversation, so that a difference can be shown and not only told. `config` and
    `weights` are digests of the base's shape and of some of its numbers. `assignment` is how tokens get role ids in a
    Mixture of Roles (None: the adapter knows no roles), `team` the preset it was trained for, `instructions` whether
    its roles were told theirs.
    """

    base: str
    config: str
    weights: str
    renderer: str
    format: str
    golden: tuple[int, ...]
    team: str | None = None
    instructions: bool = True
    assignment: str | None = None


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model ready to train or to play, with the tokenizer and the renderer that belong to it.

    `config` and `weights` are digests of the base, taken before an adapter was put on it; `contract` is the adapter's.
    """

    name: str
    model: Any
    tokenizer: Any
    renderer: Renderer
    config: str
    weights: str
    adapter: Path | None = None
    contract: Contract | None = None

    @property
    def device(self) -> torch.device:
        """Where the model's numbers are."""
        return torch.device(next(iter(self.model.parameters())).device)

    @property
    def context(self) -> int | None:
        """The most tokens the model was made for, or None if its config does not say."""
        config = self.model.config.get_text_config()
        limit = getattr(config, "max_position_embeddings", None)
        return int(limit) if limit else None


def limit_threads(count: int = 1) -> None:
    """Let torch use `count` CPU threads, unless OMP_NUM_THREADS says otherwise; entry points call this once.

    Small models lose by more than one: waiting for each other costs more than the work. Use processes instead.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(count)


def load(
    base: str,
    *,
    dtype: Dtype = "float32",
    adapter: Path | None = None,
    renderer: str | None = None,
    device: str = "cpu",
    merge: bool = False,
) -> Loaded:
    """Load `base` (`nano`, a folder, or a name on the Hugging Face hub) with its tokenizer, and `adapter` on top.

    `renderer` None: what the adapter was trained with, else what fits the tokenizer. `device` `auto`: an accelerator if
    there is one. `merge` folds the adapter into the weights: the same model to rounding, faster, no longer trainable.
    Raises NotFound for a model that is not there, ContractError where base, adapter and renderer do not fit together.
    """
    place = _find(base)
    tokenizer = _load_tokenizer(base, place)
    model = _load_model(base, place, dtype).to(_device(device))
    _check_vocabulary(base, model, tokenizer)
    config, weights = _digest_config(model), _digest_weights(model)
    contract = None
    if adapter is not None:
        contract = _contract_of(adapter, renderer)
        renderer = renderer or (contract.renderer if contract else None)
    loaded = Loaded(base, model, tokenizer, _renderer(base, tokenizer, renderer), config, weights, adapter, contract)
    if adapter is None:
        return loaded
    if contract is not None:
        check(contract, loaded)
    return dataclasses.replace(loaded, model=_attach(model, adapter, merge))


def identity(base: str, adapter: Path | None = None) -> str:
    """Return in words what is loaded from `base` and `adapter`; other weights in the same folder read differently."""
    if adapter is None:
        return base
    weights = next((file for file in sorted(adapter.glob("adapter_model.*"))), None)
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()[:12] if weights else "no weights"
    return f"{base} with {adapter} ({digest})"


def make_contract(
    loaded: Loaded, *, team: str | None = None, instructions: bool = True, assignment: str | None = None
) -> Contract:
    """Return the contract of an adapter trained on `loaded`."""
    return Contract(
        base=loaded.name,
        config=loaded.config,
        weights=loaded.weights,
        renderer=_name_of(loaded.renderer),
        format=_digest(dataclasses.asdict(loaded.renderer.format)),
        golden=_golden(loaded.renderer),
        team=team,
        instructions=instructions,
        assignment=assignment,
    )


def save_contract(contract: Contract, adapter: Path) -> None:
    """Write `contract.json` into the folder of an adapter, whole or not at all."""
    partial = adapter / f"{_CONTRACT}.partial"
    partial.write_text(json.dumps(dataclasses.asdict(contract), indent=2) + "\n", encoding="utf-8")
    partial.replace(adapter / _CONTRACT)


def read_contract(adapter: Path) -> Contract | None:
    """Return the contract of an adapter, or None if it has none; raises ContractError for one that cannot be read."""
    path = adapter / _CONTRACT
    if not path.is_file():
        return None
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return Contract(**{**data, "golden": tuple(int(i) for i in data["golden"])})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ContractError(f"{path}: not a contract ({error}); restore the file or tune the adapter again") from error


def check(contract: Contract, loaded: Loaded) -> None:
    """Raise ContractError naming the first thing in which `loaded` differs from what `contract` was made with."""
    now = make_contract(loaded)
    here, there = f"{loaded.name!r}", f"{contract.base!r}"
    difference = None
    if contract.config != now.config:
        difference = f"was tuned on {there}, whose layers have other shapes than those of {here}; load it on {there}"
    elif contract.weights != now.weights:
        difference = (
            f"was tuned on {there} with weights {contract.weights}, and those of {here} are {now.weights}; "
            "load it on the very base it was tuned on, or tune it again"
        )
    elif contract.renderer != now.renderer:
        difference = (
            f"was tuned on prompts of renderer {contract.renderer!r}, not of {now.renderer!r}; "
            f"load it with renderer={contract.renderer!r}"
        )
    elif contract.golden != now.golden:
        difference = (
            f"was tuned on prompts that came out otherwise: {_first_difference(contract, now, loaded.renderer)}; "
            "use the tokenizer and the version it was tuned with, or tune it again"
        )
    elif contract.format != now.format:
        difference = (
            f"was tuned with a renderer {now.renderer!r} that has changed since, though a plain conversation does not "
            "show it; use the version it was tuned with, or tune it again"
        )
    if difference is not None:
        raise ContractError(f"the adapter {difference}")


def _first_difference(contract: Contract, now: Contract, renderer: Renderer) -> str:
    pairs = zip(contract.golden, now.golden, strict=False)
    shorter = min(len(contract.golden), len(now.golden))
    place = next((i for i, (then, today) in enumerate(pairs) if then != today), shorter)
    then, today = (renderer.text(ids[place : place + 1]) or "the end" for ids in (contract.golden, now.golden))
    before = renderer.text(now.golden[max(0, place - 8) : place])
    return f"token {place}, after {before!r}, was {then!r} and is {today!r}"


def _find(base: str) -> str:
    """Return what transformers is to load; raises NotFound early, since its own search for a name takes a minute."""
    if base == "nano":
        if not (_NANO / "config.json").is_file():
            raise NotFound(f"the nano base is not at {str(_NANO)!r}; make it with: rolecraft nano pretrain")
        return str(_NANO)
    folder = Path(base).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            hint = "; it is an adapter: give it as the adapter, with its base" if _is_adapter(folder) else ""
            raise NotFound(f"folder {base!r} holds no model (no config.json){hint}")
        return str(folder)
    if folder.is_absolute() or base.startswith((".", "~")) or base.count("/") > 1 or "\\" in base:
        raise NotFound(f"no folder {base!r}; give a folder with config.json, 'nano', or a name on the Hugging Face hub")
    _ask_hub(base)
    return base


def _ask_hub(base: str) -> None:
    remedy = "give a folder with the model's files, or 'nano', the base that is built in"
    try:
        if not isinstance(try_to_load_from_cache(base, "config.json"), str):
            get_hf_file_metadata(hf_hub_url(base, "config.json"), timeout=10)
    except (hub_errors.RepositoryNotFoundError, hub_errors.EntryNotFoundError, hub_errors.HFValidationError) as error:
        raise NotFound(f"no folder {base!r}, and no such model on the Hugging Face hub; {remedy}") from error
    except Exception as error:  # the hub's client has changed its HTTP library, and so its errors, before
        raise NotFound(f"no folder {base!r}, and the Hugging Face hub cannot be reached; {remedy}") from error


def _load_tokenizer(base: str, place: str) -> Any:
    try:
        tokenizer = AutoTokenizer.from_pretrained(place)
    except (OSError, ValueError, TypeError, KeyError, ImportError) as error:
        raise NotFound(_no_tokenizer(base)) from error
    # Some families' classes build an empty tokenizer out of no files at all.
    if len(tokenizer) <= len(tokenizer.added_tokens_decoder):
        raise NotFound(_no_tokenizer(base))
    return tokenizer


def _no_tokenizer(base: str) -> str:
    return f"{base!r} has no tokenizer that loads; put one beside the weights with tokenizer.save_pretrained({base!r})"


def _load_model(base: str, place: str, dtype: Dtype) -> Any:
    try:
        with _no_bar() if base == "nano" else nullcontext():  # it would be gone before it could be read
            model = AutoModelForCausalLM.from_pretrained(place, dtype=getattr(torch, dtype))
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = str(error).strip().splitlines()[0]
        raise NotFound(f"{base!r} does not load as a causal language model: {reason}") from error
    return model.eval()


@contextmanager
def _no_bar() -> Iterator[None]:
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _check_vocabulary(base: str, model: Any, tokenizer: Any) -> None:
    rows, most = model.get_input_embeddings().weight.shape[0], max(tokenizer.get_vocab().values()) + 1
    if most > rows:
        raise ContractError(
            f"the tokenizer of {base!r} makes ids up to {most - 1} and the model embeds {rows}; they do not belong "
            "together, or tokens were added: model.resize_token_embeddings(len(tokenizer)), train them, and save both"
        )


def _renderer(base: str, tokenizer: Any, name: str | None) -> Renderer:
    try:
        return renderers.find(tokenizer, name)
    except ContractError as error:
        raise ContractError(f"{base!r}: {error}") from error


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise SettingsError(f"device is {name!r}; it must be 'auto', 'cpu', or one of torch's, like 'cuda'") from error


def _is_adapter(folder: Path) -> bool:
    return (folder / "adapter_config.json").is_file()


def _contract_of(adapter: Path, renderer: str | None) -> Contract | None:
    if not _is_adapter(adapter):
        raise NotFound(f"no adapter in {str(adapter)!r} (no adapter_config.json); give the folder that tuning wrote")
    contract = read_contract(adapter)
    if contract is not None and contract.renderer == _OWN and renderer is None:
        raise ContractError(f"the adapter in {str(adapter)!r} was tuned with a renderer of your own; name its file")
    if contract is None and renderer is None:
        raise ContractError(
            f"the adapter in {str(adapter)!r} has no {_CONTRACT}, so nothing tells what prompts it was tuned on; "
            f"name the renderer to vouch for it: {', '.join(catalog.names('renderers'))}"
        )
    return contract


def _attach(model: Any, adapter: Path, merge: bool) -> Any:
    try:
        with warnings.catch_warnings():
            # peft 0.21 asks transformers for a property that transformers 5.23 deprecates.
            warnings.filterwarnings("ignore", ".is_gradient_checkpointing", FutureWarning)
            wrapped = PeftModel.from_pretrained(model, str(adapter))
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ContractError(f"the adapter in {str(adapter)!r} does not fit the model: {reason}") from error
    if not merge:
        return wrapped.eval()
    if wrapped.active_peft_config.is_prompt_learning:
        raise SettingsError(
            f"the adapter in {str(adapter)!r} is prompts, which cannot be merged; load it without merge"
        )
    return wrapped.merge_and_unload().eval()


def _digest(data: Any) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:16]


def _digest_config(model: Any) -> str:
    config = model.config.get_text_config().to_dict()
    return _digest([config.get(key) for key in _SHAPE])


def _digest_weights(model: Any) -> str:
    """Return a digest of the corner of every matrix; weights saved in bfloat16 have the same in every wider type."""
    digest = hashlib.sha256()
    for parameter in model.parameters():
        rows = parameter.detach()[:8] if parameter.dim() else parameter.detach()[None]
        corner = rows[:, :8] if rows.dim() > 1 else rows
        digest.update(corner.to("cpu", torch.bfloat16).contiguous().view(torch.int16).numpy().tobytes())
    return digest.hexdigest()[:16]


def _name_of(renderer: Renderer) -> str:
    """Return the catalog's name of a renderer's format; a user's own has none, only its digest tells it."""
    names = catalog.names("renderers")
    return next((name for name in names if renderer.format == catalog.find("renderers", name).FORMAT), _OWN)


def _golden(renderer: Renderer) -> tuple[int, ...]:
    """Return the ids of a conversation that shows every kind of block, call and result, and text that splits oddly."""
    parameters = {
        "type": "object",
        "properties": {"name": {"type": "string", "description": "whose"}, "days": {"type": "integer"}},
        "required": ["name"],
    }
    tools = (ToolSpec("read_debt", "debt of a company", parameters), ToolSpec("noop", "nothing"))
    calls = (ToolCall("read_debt", {"name": "Plalples", "days": 12}, "a"), ToolCall("noop", {}, "b"))
    messages: Sequence[Message] = (
        Message("system", "Be brief."),
        Message("user", "What does Plalples owe, in € of 2024-05-01?  Né <b>3.5%</b>\n- 10_000"),
        Message("assistant", "I need the debt. Next: executor.", speaker="reasoner"),
        Message("assistant", tool_calls=calls, speaker="executor"),
        Message("tool", "3809", tool_call_id="a", name="read_debt"),
        Message("tool", '{"ok": true}', tool_call_id="b", name="noop"),
        Message("assistant", "The debt of Plalples is 3809.", speaker="summarizer"),
        Message("user", "Thanks."),
        Message("assistant", "You are welcome."),
    )
    return renderer.render(messages, tools).ids
