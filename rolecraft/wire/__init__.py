"""OpenAI chat JSON <-> our types, both ways without loss: data files, the run folder, the server and remote engines.

A row is OpenAI's fine-tuning line: `messages` and `tools`, with `weight` on assistant messages. Optional keys of ours:
`speaker` and `unparsed` on a message, `strict` on one that was read leniently, which is the message that a strict
reading gives, `failed` on a tool message that tells an error; on a row `id`, `reference`, `lineage` and what a run adds
(`stop`, `seed`, `final_state`, `verdict`, `trials`). An unknown key is an error that says what to do; a known key that
is null is absent.

What reading changes, on purpose: `content` parts are joined and null content is ""; role `developer` is `system`;
`reasoning_content` (or `reasoning`) moves into the content as `<think>` text; `strict` of a tool and
`parallel_tool_calls` are wishes to OpenAI's decoder, not part of the record, and are dropped, as are a record's `turns`
(`store` reads those). A call whose arguments are not a JSON object is kept in `Message.unparsed`, its arguments
verbatim, and is written back to the place where it was. Of a tool's schema, keywords and properties that are null, as
tables pad them, are left out. In a row, the older `functions`, `function_call` and role `function` become tools and
tool calls.

A pair of replies of which one is preferred is a row of OpenAI's preference format: `input`, `preferred_output` and
`non_preferred_output`, with an `id` of ours.

Not covered: images, audio and refusals; each is an error with its remedy.
"""

from __future__ import annotations

from rolecraft.wire.calls import ArgumentsForm, call_to_json
from rolecraft.wire.conversation import all_calls, settled
from rolecraft.wire.messages import message_from_json, message_to_json
from rolecraft.wire.preferences import Pair, pair_from_json, pair_to_json
from rolecraft.wire.rows import require_owners, trajectory_from_json, trajectory_to_json
from rolecraft.wire.text import depth_within, dumps, loads, read_arguments
from rolecraft.wire.tools import tool_from_json, tool_to_json, tools_from_json
from rolecraft.wire.unknown import KNOWN_ROW, KNOWN_TOOL, Keys, without_unknown_keys

__all__ = [
    "KNOWN_ROW",
    "KNOWN_TOOL",
    "ArgumentsForm",
    "Keys",
    "Pair",
    "all_calls",
    "call_to_json",
    "depth_within",
    "dumps",
    "loads",
    "message_from_json",
    "message_to_json",
    "pair_from_json",
    "pair_to_json",
    "read_arguments",
    "require_owners",
    "settled",
    "tool_from_json",
    "tool_to_json",
    "tools_from_json",
    "trajectory_from_json",
    "trajectory_to_json",
    "without_unknown_keys",
]
