"""What a tool is, how a function becomes one, and the toolbox that runs an episode's calls within bounds.

To add a tool, write `tools/x.py` with a `@tool` function, or, for one with state, a `Settings` dataclass and
`open(settings)` that returns a `ToolLike`. Every parameter is annotated and described. Where the default settings open
nothing, `EXAMPLE` holds settings for the contract test. A file here imports
`_contract` and `_function`, never this one.

Not covered here: a plain `@tool` function is the caller's own code and runs in this process with all its rights. The
toolbox stops waiting for one that hangs, but cannot stop its thread. Code that a model wrote belongs in `python.py`.
"""

from __future__ import annotations

from rolecraft.tools._arguments import MAX_DEPTH, misfit
from rolecraft.tools._contract import ToolFailure, ToolLike
from rolecraft.tools._finding import find, load_tools
from rolecraft.tools._function import Tool, tool
from rolecraft.tools._toolbox import Toolbox

__all__ = ["MAX_DEPTH", "Tool", "ToolFailure", "ToolLike", "Toolbox", "find", "load_tools", "misfit", "tool"]
