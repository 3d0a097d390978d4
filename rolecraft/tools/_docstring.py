"""Reads a docstring: what a tool does, and what each of its parameters is."""

from __future__ import annotations

import re

_SECTION = re.compile(r"^(Args|Arguments|Parameters|Returns?|Yields?|Raises|Examples?|Notes?|Warnings?):\s*$")
_ENTRY = re.compile(r"^(\*{0,2}\w+)\s*(?:\([^)]*\))?\s*:\s*(.*)$")


def read(text: str) -> tuple[str, dict[str, str]]:
    """Return the text before the first section as one line, and the descriptions under `Args:` by parameter."""
    opening: list[str] = []
    described: dict[str, str] = {}
    section, last, indent = "", "", 0
    for line in text.splitlines():
        head = _SECTION.match(line)
        if head:
            section = head.group(1)
        elif not section:
            opening.append(line)
        elif section in ("Args", "Arguments", "Parameters") and line.strip():
            depth = len(line) - len(line.lstrip())
            entry = _ENTRY.match(line.strip()) if not last or depth <= indent else None
            if entry:
                last, indent = entry.group(1).lstrip("*"), depth
                described[last] = entry.group(2).strip()
            elif last:
                described[last] = f"{described[last]} {line.strip()}".strip()
    return " ".join(" ".join(opening).split()), described
