"""Where a base and an adapter are and what they are called: found or told missing before torch is there to load them.

Not covered: what the files hold, and downloading them from the hub.
"""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

from huggingface_hub import errors as hub_errors
from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache

from rolecraft import smollm2
from rolecraft.errors import MissingExtra, NotFound

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
            hint = "; it is an adapter: give it as the adapter, with its base" if _is_adapter(folder) else ""
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
    if not _is_adapter(adapter):
        raise NotFound(f"no adapter in {str(adapter)!r} (no adapter_config.json); give the folder that tuning wrote")


def identity(base: str, adapter: Path | None = None) -> str:
    """Return in words what is loaded from `base` and `adapter`; other weights in the same folder read differently."""
    if adapter is None:
        return base
    weights = next((file for file in sorted(adapter.glob("adapter_model.*"))), None)
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()[:12] if weights else "no weights"
    return f"{base} with {adapter} ({digest})"


def _is_adapter(folder: Path) -> bool:
    return (folder / "adapter_config.json").is_file()


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
