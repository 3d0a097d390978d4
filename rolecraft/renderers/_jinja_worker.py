"""The process in which chat templates are rendered: a JSON object a line in, a JSON object a line out."""

from __future__ import annotations

import contextlib
import datetime
import importlib
import json
import sys
from typing import Any


class FixedDate(datetime.datetime):
    """A clock that stands still: a template that tells today's date tells this one, as our formats do."""

    @classmethod
    def now(cls, tz: Any = None) -> FixedDate:
        """Return the date that Llama 3.2's template has as its own."""
        return cls(2024, 7, 26)


def serve(memory: int) -> None:
    """Answer each request with `text`, or `error` and why, until there are no more; `memory` is in bytes."""
    # Not imported by name: only this process has transformers, not those parts that use it.
    templates: Any = importlib.import_module("transformers.utils.chat_template_utils")
    templates.datetime = FixedDate
    with contextlib.suppress(ImportError):  # Windows has no such limits
        limits = importlib.import_module("resource")
        limits.setrlimit(limits.RLIMIT_AS, (memory, memory))
    print("{}", flush=True)
    for line in sys.stdin:
        print(json.dumps(_answer(templates, json.loads(line))), flush=True)


def _answer(templates: Any, request: dict[str, Any]) -> dict[str, str]:
    most = request.pop("most")
    try:
        (text,), _ = templates.render_jinja_template([request.pop("messages")], **request)
    except MemoryError:
        return {"error": "it needs more memory than a template may have"}
    except Exception as error:  # noqa: BLE001  # a template is somebody else's program
        return {"error": f"{type(error).__name__}: {error}"[:300]}
    return {"text": text} if len(text) <= most else {"error": f"it writes more than {most} characters"}


if __name__ == "__main__":
    serve(int(sys.argv[1]))
