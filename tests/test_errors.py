"""Errors are one tree, told apart by whose fault they are."""

from __future__ import annotations

import inspect

import pytest

from rolecraft import errors

KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if kind.__module__ == errors.__name__]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_is_in_the_tree_that_the_docstring_shows(kind):
    assert issubclass(kind, errors.RolecraftError)
    assert kind.__name__ in (errors.__doc__ or "")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_callers_errors_exit_with_2_and_ours_with_1_but_a_signals_with_the_shells_130(kind):
    ours = 130 if kind.__name__ == "Interrupted" else 1
    assert kind.exit_code == (2 if issubclass(kind, errors.UserError) else ours)


def test_a_missing_extra_names_the_command_that_installs_it():
    message = str(errors.MissingExtra("wandb", "wandb"))
    assert message == "'wandb' is not installed. Install it with: pip install 'rolecraft[wandb]'"
    message = str(errors.MissingExtra("bfcl-eval", command="pip install --no-deps bfcl-eval"))
    assert message == "'bfcl-eval' is not installed. Install it with: pip install --no-deps bfcl-eval"
