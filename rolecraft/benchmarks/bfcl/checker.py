"""BFCL's own checker of calls, given calls that were read from JSON and never a model's text.

Importing it would import the clients of every API that BFCL knows, for one table that says how they write dots; an
empty table stands in while it is imported. Nothing of the package that makes folders or asks the network is imported.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from types import ModuleType, SimpleNamespace
from typing import Any

from rolecraft.benchmarks.bfcl.data import absent
from rolecraft.types import Json

_CHECKER = "bfcl_eval.eval_checker.ast_eval.ast_checker"
_CONFIG = "bfcl_eval.constants.model_config"
_REASON_CHARS = 300


def fault(
    calls: Sequence[Mapping[str, Mapping[str, Json]]],
    functions: Sequence[Mapping[str, Json]],
    answers: Sequence[Mapping[str, Json]],
    category: str,
) -> str:
    """Return what the checker says is wrong with `calls`, each {function: arguments}, or nothing.

    Raises MissingExtra where BFCL is not installed.
    """
    checker, enums = _load(), importlib.import_module("bfcl_eval.constants.enums")
    python = enums.Language.PYTHON
    try:
        rebuilt = json.loads(json.dumps(list(calls)))
        found = checker.ast_checker(list(functions), rebuilt, list(answers), python, category, "rolecraft")
        told = "" if found["valid"] else f"{found.get('error_type', 'wrong')}: {found['error']}"
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        told = f"the checker cannot take these arguments: {type(error).__name__}"
    return told[:_REASON_CHARS]


def _load() -> Any:
    """Return the checker's module."""
    if _CHECKER in sys.modules:
        return sys.modules[_CHECKER]
    before = sys.modules.get(_CONFIG)
    stand_in = ModuleType(_CONFIG)
    stand_in.__dict__["MODEL_CONFIG_MAPPING"] = defaultdict(lambda: SimpleNamespace(underscore_to_dot=False))
    sys.modules[_CONFIG] = stand_in
    try:
        return importlib.import_module(_CHECKER)
    except ModuleNotFoundError as error:
        raise absent() from error
    finally:
        if before is None:
            del sys.modules[_CONFIG]
        else:
            sys.modules[_CONFIG] = before
