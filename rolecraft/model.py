"""Loads a base, its tokenizer and an adapter; refuses an adapter that was tuned on other prompts or another base.

Not covered: downloading with credentials, quantised weights, and code that comes with a model (it is never run).
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import peft
import torch
from peft import PeftConfig, PeftModel
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import find_adapter_config_file, logging

from rolecraft import bases, catalog, contract, fit, gguf, parsing, renderers, virtual_tokens
from rolecraft.contract import Contract
from rolecraft.errors import ContractError, NotFound, SettingsError
from rolecraft.gate import Gate
from rolecraft.renderers import Found, Renderer
from rolecraft.team import Team

Dtype = Literal["float32", "bfloat16", "float16", "stored"]
"""The type of a model's weights; `stored` is that of its files."""

_OWN_TEMPLATE = "rolecraft_template"
"""In a saved tokenizer's config: the model's own template, where the one beside it is made of that."""

_SHAPE = (
    "model_type",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model ready to train or to play, with the tokenizer and the renderer that belong to it.

    `config` and `weights` are digests of the base, taken before an adapter was put on it; `contract` is the adapter's,
    and `gate` its rule for the tokens' role ids, None for a model that knows no roles. `chat` says which chat format
    was found and why, '' where it was named. `switch`: the renderers that tell a base to think, and not to. `virtual`:
    the ids of the virtual tokens that every sequence begins with.
    """

    name: str
    model: Any
    tokenizer: Any
    renderer: Renderer
    config: str
    weights: str
    adapter: Path | None = None
    contract: Contract | None = None
    gate: Gate | None = None
    chat: str = ""
    switch: Mapping[bool, Renderer] = field(default_factory=dict)
    virtual: tuple[int, ...] = ()

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
    renderer: str | Path | None = None,
    think: bool | None = None,
    device: str = "cpu",
    merge: bool = False,
) -> Loaded:
    """Load `base` with its tokenizer, and `adapter` on top.

    `base` is `nano`, `smollm2`, a folder, a GGUF file, or a name on the Hugging Face hub.

    `renderer` None: what the adapter was trained with, else what fits the tokenizer. `think`: whether a family that can
    be told to think or not is told so; None leaves it to its template. `device` `auto`: an accelerator if
    there is one. `merge` folds the adapter into the weights: the same model to rounding, faster, no longer trainable.
    Raises NotFound for a model that is not there, ContractError where base, adapter and renderer do not fit together.
    """
    source, whole = bases.source(base, adapter), adapter is not None and bases.is_whole(adapter)
    place = _place(bases.find(source))
    told = _read_config(source, place)  # first, since each part reads it and fails for another reason
    tokenizer = _load_tokenizer(source, place)
    if adapter is None:
        renderers.prepare(tokenizer, renderer)
    elif whole:
        fit.require_whole_fit(adapter, make_empty(told))
    model = _load_model(source, place, dtype).to(_device(device))
    _check_vocabulary(source, model, tokenizer)
    config, weights = _digest_config(model), _digest_weights(model)
    made = None
    if adapter is not None:
        made = _contract_of(adapter, renderer)
        renderer = renderer or (made.renderer if made else None)
        if made is not None and whole:
            config, weights = _digests_of_base(base, made)
    found = _renderer(base, tokenizer, renderer, think)
    renderers.release(found)
    chat = f"{found.name}: {found.why}" if found.why else ""
    loaded = Loaded(base, model, tokenizer, found.renderer, config, weights, adapter, made, chat=chat)
    if adapter is None:
        return dataclasses.replace(loaded, switch=renderers.switch(found, tokenizer))
    if made is not None:
        contract.check(made, make_contract(loaded), loaded.renderer)
    tuned = model if whole else _attach(model, adapter, merge)
    virtual = virtual_tokens.ids(tuned)
    return dataclasses.replace(loaded, model=tuned, gate=_gate(tuned, made), virtual=virtual)


def make_empty(config: Any) -> Any:
    """Return a model without numbers, on the meta device, for what its shape tells; raises NotFound."""
    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config)
    except fit.UNREADABLE as error:
        raise NotFound(f"config {config.model_type!r} is of no causal language model: {_first_line(error)}") from error


def _digests_of_base(base: str, made: Contract) -> tuple[str, str]:
    """Return the digests of a whole tuned model's base: those it was tuned on, and of another named base its shape.

    The base's weights are not loaded and may not even be there, so only a base of another shape is found out.
    """
    return made.config if base == made.base else _digest_config(make_empty(load_config(base))), made.weights


def _place(found: str) -> str:
    """Return what transformers is to load, of a GGUF file its dequantised folder."""
    return str(gguf.converted(Path(found))) if bases.is_gguf(found) else found


def make_contract(
    loaded: Loaded, *, team: str | None = None, instructions: bool = True, gate: Gate | None = None
) -> Contract:
    """Return the contract of an adapter trained on `loaded`."""
    base = (loaded.name, loaded.config, loaded.weights)
    return contract.make(base, loaded.renderer, team=team, instructions=instructions, gate=gate)


def save_tokenizer(loaded: Loaded, players: Team, folder: Path) -> None:
    """Save the tokenizer with a template that prompts the first of `players` as the renderer does."""
    tokenizer, renderer = copy.deepcopy(loaded.tokenizer), loaded.renderer
    first = players.role(players.first)
    tokenizer.chat_template = renderers.write_template(
        renderer.format,
        first.name,
        first.instructions,
        reminder=first.reminder,
        told_tools=first.told_tools,
        tags_are_tokens=renderer.tags_are_tokens,
    )
    if (name := contract.name_of(renderer)) != contract.OWN:
        tokenizer.init_kwargs["rolecraft_renderer"] = name
    if renderer.format.template:  # told instructions, the one that is saved would tell them twice
        tokenizer.init_kwargs[_OWN_TEMPLATE] = renderer.format.template.text
    tokenizer.save_pretrained(str(folder))


def _load_tokenizer(base: str, place: str) -> Any:
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False)
    except fit.UNREADABLE as error:
        _refuse_code(base, error)
        raise NotFound(f"{_no_tokenizer(base)} ({_first_line(error)})") from error
    if isinstance(kept := tokenizer.init_kwargs.get(_OWN_TEMPLATE), str):
        tokenizer.chat_template = kept
    # Some families' classes build an empty tokenizer out of no files at all.
    if len(tokenizer) <= len(tokenizer.added_tokens_decoder):
        raise NotFound(_no_tokenizer(base))
    return tokenizer


def load_config(base: str) -> Any:
    """Return the configuration that tells the shape of `base`; raises NotFound (see `bases.find_config`)."""
    return _read_config(base, _place(bases.find_config(base)))


def _read_config(base: str, place: str) -> Any:
    try:
        return AutoConfig.from_pretrained(place, trust_remote_code=False)
    except fit.UNREADABLE as error:
        _refuse_code(base, error)
        raise NotFound(f"the config of {base!r} does not load: {_first_line(error)}") from error


def _refuse_code(base: str, error: Exception) -> None:
    """Raise NotFound if transformers asks for leave to run code that comes with the model."""
    if "trust_remote_code" in str(error):
        raise NotFound(
            f"{base!r} comes with Python code of its own (auto_map in its config), and no code that comes with a model "
            "is run; use a model of an architecture that transformers has"
        ) from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _no_tokenizer(base: str) -> str:
    return f"{base!r} has no tokenizer that loads; put one beside the weights with tokenizer.save_pretrained({base!r})"


def _load_model(base: str, place: str, dtype: Dtype) -> Any:
    try:
        if find_adapter_config_file(place) is not None:
            raise ValueError("an adapter lies in the same folder; move it to one of its own, or it would go unchecked")
        kind = "auto" if dtype == "stored" else getattr(torch, dtype)
        with no_bar():  # of loading what is on disk it would be gone before it could be read
            model = AutoModelForCausalLM.from_pretrained(place, dtype=kind, trust_remote_code=False)
    except fit.UNREADABLE as error:
        _refuse_code(base, error)
        raise NotFound(f"{base!r} does not load as a causal language model: {_first_line(error)}") from error
    return model.eval()


@contextmanager
def no_bar() -> Iterator[None]:
    """Let transformers show no bars of what it reads and writes within."""
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


def _renderer(base: str, tokenizer: Any, name: str | Path | None, think: bool | None) -> Found:
    try:
        return renderers.recognize(tokenizer, name, think=think)
    except ContractError as error:
        raise ContractError(f"{base!r}: {error}") from error
    except NotFound as error:
        if name is not None:
            raise
        raise NotFound(f"rolecraft_renderer in the tokenizer's config of {base!r}: {error}") from error


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise SettingsError(f"device is {name!r}; it must be 'auto', 'cpu', or one of torch's, like 'cuda'") from error


def _contract_of(adapter: Path, renderer: str | Path | None) -> Contract | None:
    bases.require_adapter(adapter)
    made = contract.read(adapter)
    if made is not None and made.renderer == contract.OWN and renderer is None:
        raise ContractError(f"the adapter in {str(adapter)!r} was tuned with a renderer of your own; name its file")
    if made is None and renderer is None:
        raise ContractError(
            f"the adapter in {str(adapter)!r} has no {contract.FILE}, so nothing tells what prompts it was tuned on; "
            f"name the renderer to vouch for it: {', '.join(catalog.names('renderers'))}"
        )
    return made


def merges(adapter: Path) -> bool:
    """Tell whether the adapter can be folded into the base's weights: prompts cannot, nor what depends on the token."""
    if bases.is_whole(adapter):
        return True
    return folds(adapter) and not hasattr(_peft_config(adapter), "num_virtual_tokens")


def folds(adapter: Path) -> bool:
    """Tell whether all of the adapter but virtual tokens can be folded into the base's weights, to be played faster."""
    if bases.is_whole(adapter):
        return True
    config = _peft_config(adapter)
    return not config.is_prompt_learning and not hasattr(config, "assignment")


def _peft_config(adapter: Path) -> Any:
    """Return PEFT's configuration of an adapter, after making PEFT know the method if it is one of ours."""
    bases.require_adapter(adapter)
    try:
        told = parsing.read_json(adapter / "adapter_config.json")
        method = str(told["peft_type"]).partition(":")[0].lower()
        if told.get("megatron_config") is not None:
            raise ValueError("with megatron_config PEFT imports the module that megatron_core names, and none is run")
        if method in catalog.names("adapters"):
            catalog.find("adapters", method)
        return PeftConfig.from_pretrained(str(adapter))
    except (SettingsError, *fit.UNREADABLE) as error:
        raise ContractError(
            f"PEFT {peft.__version__} does not take the adapter_config.json in {str(adapter)!r}: {error}; restore the "
            "file, or use the version of PEFT that it was made with"
        ) from error


def _gate(tuned: Any, made: Contract | None) -> Gate | None:
    """Return the gate in the adapter's own configuration; raises ContractError if the contract tells another one."""
    config: Any = tuned.active_peft_config if isinstance(tuned, PeftModel) else None
    gate = Gate(config.speakers, config.assignment, config.context) if hasattr(config, "assignment") else None
    if made is not None and made.gate != gate:
        raise ContractError(
            f"the adapter was tuned with the gate {made.gate} and its adapter_config.json tells {gate}; restore the "
            "folder, or tune the adapter again"
        )
    return gate


def _attach(model: Any, adapter: Path, merge: bool) -> Any:
    config = _peft_config(adapter)
    if merge and not folds(adapter):
        raise SettingsError(f"the adapter in {str(adapter)!r} cannot be merged into its base; load it without merge")
    fit.require_fit(adapter, model, config)
    try:
        with warnings.catch_warnings():
            # peft 0.21 asks transformers for a property that transformers 5.23 deprecates.
            warnings.filterwarnings("ignore", ".is_gradient_checkpointing", FutureWarning)
            wrapped = PeftModel.from_pretrained(model, str(adapter), config=config)
    except fit.UNREADABLE as error:
        raise ContractError(f"the adapter in {str(adapter)!r} does not fit the model: {_first_line(error)}") from error
    virtual_tokens.fix(wrapped)
    return wrapped.merge_and_unload().eval() if merge else wrapped.eval()


def _digest_config(model: Any) -> str:
    config = model.config.get_text_config().to_dict()
    return contract.digest([config.get(key) for key in _SHAPE])


def _digest_weights(model: Any) -> str:
    """Return a digest of the corner of every matrix; weights saved in bfloat16 have the same in every wider type."""
    digest = hashlib.sha256()
    for parameter in model.parameters():
        rows = parameter.detach()[:8] if parameter.dim() else parameter.detach()[None]
        corner = rows[:, :8] if rows.dim() > 1 else rows
        digest.update(corner.to("cpu", torch.bfloat16).contiguous().view(torch.int16).numpy().tobytes())
    return digest.hexdigest()[:16]
