"""Where a base and an adapter are and what they are called: found or told missing before torch is there to load them.

Not covered: what the files hold, and downloading them from the hub.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import errors as hub_errors
from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache

from rolecraft import cast, contract, smollm2
from rolecraft.errors import MissingExtra, NotFound

MARKS = ("adapter_config.json", "config.json")
"""The file that makes a folder an adapter; of a whole tuned model it is its config, with a contract beside it."""

_NANO = Path(__file__).parent / "nano" / "weights"


def find(base: str) -> str:
    """Return the folder, the name on the hub or the GGUF file of `base`.

    Raises NotFound early, since transformers' own search for a name takes a minute, and MissingExtra for a GGUF file
    where the package that reads it is missing.
    """
    if base == "nano":
        if not (_NANO / "config.json").is_file():
            raise NotFound(f"the nano base is not at {str(_NANO)!r}; make it with: rolecraft nano pretrain")
        return str(_NANO)
    if base == "smollm2":
        return find(str(smollm2.fetch())) if _hub_lacks(smollm2.HUB_NAME) else smollm2.HUB_NAME
    if is_gguf(base):
        return str(_require_gguf(Path(base).expanduser()))
    folder = Path(base).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            hint = "; it is an adapter: give it as the adapter, with its base" if is_adapter(folder) else ""
            raise NotFound(f"folder {base!r} holds no model (no config.json){hint}")
        return str(folder)
    if folder.is_absolute() or base.startswith((".", "~")) or base.count("/") > 1 or "\\" in base:
        raise NotFound(
            f"no folder {base!r}; give a folder with config.json, a GGUF file, 'nano', 'smollm2', or a name on the "
            "Hugging Face hub"
        )
    _ask_hub(base)
    return base


def is_gguf(base: str) -> bool:
    """Whether `base` is named as a GGUF file is."""
    return base.lower().endswith(".gguf")


def find_config(base: str) -> str:
    """Return what tells the shape of `base`, which may be a config.json as well; raises NotFound as `find` does."""
    if not base.endswith(".json"):
        return find(base)
    if not Path(base).is_file():
        raise NotFound(f"no file {base!r}; give a config.json, a model's folder, a name on the hub, or nano")
    return base


def require_adapter(adapter: Path) -> None:
    """Raise NotFound unless the folder holds an adapter."""
    if told := cast.read(adapter):
        told_folders = ", ".join(str(place) for place in dict.fromkeys(cast.folders(told, adapter).values()))
        raise NotFound(f"{str(adapter)!r} has a model for each role; name the folder of one: {told_folders}")
    if is_adapter(adapter):
        return
    if (adapter / MARKS[1]).is_file():
        raise NotFound(
            f"no adapter in {str(adapter)!r}: it is a whole model without {contract.FILE}; give it as the base (--base)"
        )
    raise NotFound(f"no adapter in {str(adapter)!r} (no {MARKS[0]}); give the folder that tuning wrote")


def is_adapter(folder: Path) -> bool:
    """Tell whether the folder holds what tuning wrote to its end: an adapter of PEFT's, or a whole model."""
    return (folder / MARKS[0]).is_file() or is_whole(folder)


def is_whole(adapter: Path) -> bool:
    """Tell whether what tuning wrote there is a whole model, which needs no base."""
    return all((adapter / name).is_file() for name in (MARKS[1], contract.FILE)) and not (adapter / MARKS[0]).is_file()


def source(base: str, adapter: Path | None) -> str:
    """Return what the weights are loaded from: `base`, or the folder of an adapter that is a whole model."""
    return str(adapter) if adapter is not None and is_whole(adapter) else base


def identity(base: str, adapter: Path | None = None) -> str:
    """Return in words what is loaded from `base` and `adapter`; other weights in the same folder read differently."""
    if adapter is None:
        return base
    return f"{base} with {adapter} ({digest_weights(adapter)[:12] or 'no weights'})"


def digest_weights(folder: Path) -> str:
    """Return the digest of an adapter's weights, or of a whole model's; '' where there are none.

    That of a cast is of each role's.
    """
    if told := cast.read(folder):
        found = [f"{role} {digest_weights(place)}" for role, place in sorted(cast.folders(told, folder).items())]
        return hashlib.sha256("\n".join(found).encode()).hexdigest()
    return _digest(sorted(folder.glob("adapter_model.*")) or sorted(folder.glob("model*.safetensors")))


def digest(base: str) -> str:
    """Return the digest of a base's files, wherever they lie, or its name if it is on the hub; see `find`."""
    place = find(base)
    if is_gguf(place):
        return _digest([Path(place)])
    if not Path(place).is_dir():
        return place
    folder = Path(place)
    return _digest([folder / MARKS[1], *sorted(folder.glob("*.safetensors")), *sorted(folder.glob("*.bin"))])


def _digest(paths: Sequence[Path]) -> str:
    found = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                found.update(block)
    return found.hexdigest() if paths else ""


def _require_gguf(path: Path) -> Path:
    if not path.is_file():
        raise NotFound(f"no file {str(path)!r}; give a GGUF file that exists")
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise NotFound(f"{str(path)!r} is no GGUF file: it does not begin with 'GGUF'; download it again")
    if importlib.util.find_spec("gguf") is None:
        raise MissingExtra("gguf", "gguf")
    return path


def _hub_lacks(name: str) -> bool:
    try:
        _ask_hub(name)
    except NotFound:
        return True
    return False


def _ask_hub(base: str) -> None:
    remedy = "give a folder with the model's files, or 'nano', the base that is built in"
    try:
        if not isinstance(try_to_load_from_cache(base, "config.json"), str):
            get_hf_file_metadata(hf_hub_url(base, "config.json"), timeout=10)
    except (hub_errors.RepositoryNotFoundError, hub_errors.EntryNotFoundError, hub_errors.HFValidationError) as error:
        raise NotFound(f"no folder {base!r}, and no such model on the Hugging Face hub; {remedy}") from error
    except Exception as error:  # the hub's client has changed its HTTP library, and so its errors, before
        raise NotFound(f"no folder {base!r}, and the Hugging Face hub cannot be reached; {remedy}") from error
