"""The error tree, by whose fault it is.

RolecraftError
├── UserError            the caller's: shown as one line, exit code 2
│   ├── SettingsError    an unknown or impossible setting
│   ├── DataError        a bad file or row: names file, line and reason
│   ├── NotFound         no such member, file, model or adapter
│   └── MissingExtra     an optional dependency is absent: names the command that installs it
├── SandboxError         the sandbox cannot be started as asked
├── NotForkable          a tool whose state cannot be copied was asked to fork
├── Interrupted          a signal stopped a run, which was saved and can be resumed: exit code 130
├── ContractError        an adapter or renderer does not fit the model it is used with
└── EngineError          a model call could not be served (memory, connection)
    └── ContextFull      a prompt leaves no room for a reply; an episode ends there

A model's mistakes are data, never exceptions.
"""

from __future__ import annotations


class RolecraftError(Exception):
    """Anything Rolecraft raises on purpose."""

    exit_code = 1


class UserError(RolecraftError):
    """The caller can mend it; the message says how."""

    exit_code = 2


class SettingsError(UserError):
    """An unknown or impossible setting."""


class DataError(UserError):
    """A bad file or row."""


class NotFound(UserError):
    """No such member, file, model or adapter."""


class MissingExtra(UserError):
    """An optional dependency is absent."""

    def __init__(self, package: str, extra: str = "", *, command: str = "") -> None:
        """Name the package, and the extra that has it or, where none can, the `command` that installs it."""
        command = command or f"pip install 'rolecraft[{extra}]'"
        super().__init__(f"{package!r} is not installed. Install it with: {command}")


class SandboxError(RolecraftError):
    """The sandbox cannot be started as asked."""


class NotForkable(RolecraftError):
    """A tool whose state cannot be copied was asked to fork."""


class ContractError(UserError):
    """An adapter or renderer does not fit the model it is used with."""


class EngineError(RolecraftError):
    """A model call could not be served."""


class ContextFull(EngineError):
    """A prompt leaves no room for a reply in the model's context."""


class Interrupted(RolecraftError):
    """A signal stopped a run; what was done is saved, and the message says how to go on."""

    exit_code = 130
