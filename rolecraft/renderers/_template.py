"""Writes a chat format as a Jinja template, so that other programs prompt as the renderer does.

The template takes messages as OpenAI's API has them, their arguments as objects or as text, and `speaker` on an
assistant's message. Not covered: markers spelled out in content, which other programs take for control tokens, and
calls that did not parse.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from rolecraft.renderers._format import CallSyntax, Format, Template

_SPEC = """{%- macro told(tool) -%}
{%- set f = tool.function if tool.function is defined else tool -%}
{%- set made = {'name': f.name, 'description': f.description or '', 'parameters': f.parameters or EMPTY} -%}
TOLD
{%- endmacro -%}
"""
_EMPTY = "{'type': 'object', 'properties': {}}"
_WRAPPED = "{'type': 'function', 'function': made}"
_STYLES = {
    "json": f"{{{{- {_WRAPPED} | tojson -}}}}",
    "indented": f"{{{{- {_WRAPPED} | tojson(indent=4) -}}}}",
    "nested": f"{{{{- {_WRAPPED} | tojson(indent=4) | replace('\\n', '\\n    ') -}}}}",
    "function": "{{- made | tojson -}}",
    "signature": """{{- made.description.split() | join(' ') + ':' + made.name + '(' -}}
{%- for key, schema in (made.parameters.properties or {}).items() -%}
{{- (',' if not loop.first else '') + key + ('' if key in (made.parameters.required or []) else '?') -}}
{%- if schema is mapping -%}
{%- if schema.enum is defined and schema.enum is not string and 0 < schema.enum | length <= 8 -%}
{{- ':' + schema.enum | join('|') -}}
{%- elif schema.type is string and schema.type in TYPES -%}
{{- ':' + TYPES[schema.type] -}}
{%- endif -%}
{%- endif -%}
{%- endfor -%}
{{- ')' -}}""",
}
_IN_PYTHON = r"""{%- macro in_python(value) -%}
{%- if value is string -%}
{{- "'" + value.replace('\\', '\\\\').replace("'", "\\'").replace('\n', '\\n').replace('\r', '\\r') + "'" -}}
{%- elif value is mapping or value is iterable -%}
{{- value | tojson -}}
{%- else -%}
{{- value | string -}}
{%- endif -%}
{%- endmacro -%}
"""
_IN_TEXT = r"""{%- set kept = namespace(rows=[], head=(tool_list() | trim) if tools else '') -%}
{%- if kept.head and (not messages or messages[0].role != 'system') -%}
{%- set kept.rows = [{'role': 'system', 'content': kept.head}] -%}
{%- set kept.head = '' -%}
{%- endif -%}
{%- for message in messages -%}
{%- if message.role == 'assistant' -%}
{%- set said = message.content or '' -%}
{%- if message.tool_calls -%}
{%- set said = (said + '\n' if said else '') + calls_of(message) -%}
{%- endif -%}
{%- set kept.rows = kept.rows + [{'role': 'assistant', 'content': said}] -%}
{%- elif message.role == 'tool' and not loop.first and loop.previtem.role == 'tool' -%}
{%- set joined = kept.rows[-1].content + '\n' + TOLD -%}
{%- set kept.rows = kept.rows[:-1] + [{'role': 'user', 'content': joined}] -%}
{%- elif message.role == 'tool' -%}
{%- set kept.rows = kept.rows + [{'role': 'user', 'content': TOLD}] -%}
{%- elif kept.head -%}
{%- set both = (message.content + '\n\n' if message.content else '') + kept.head -%}
{%- set kept.rows = kept.rows + [{'role': message.role, 'content': both}] -%}
{%- set kept.head = '' -%}
{%- else -%}
{%- set kept.rows = kept.rows + [message] -%}
{%- endif -%}
{%- endfor -%}
{%- set messages = kept.rows -%}
{%- set tools = none -%}
"""
_NO_SYSTEM = r"""{%- if messages and messages[0].role == 'system' -%}
{%- set told = messages[0].content -%}
{%- set messages = messages[1:] -%}
{%- if messages and messages[0].role == 'user' -%}
{%- set told = told + '\n\n' + messages[0].content -%}
{%- set messages = messages[1:] -%}
{%- endif -%}
{%- set messages = [{'role': 'user', 'content': told | trim}] + messages -%}
{%- endif -%}
"""
_TYPES = {"integer": "int", "number": "float", "boolean": "bool", "array": "list", "object": "dict", "null": "null"}


def write_template(
    format: Format,
    speaker: str = "assistant",
    instructions: str = "",
    *,
    reminder: str = "",
    told_tools: bool = True,
    tags_are_tokens: bool = True,
) -> str:
    """Return the template of `format`; a prompt ends where `speaker` writes, who is told `instructions`.

    The instructions open the system text, and a reminder ends a prompt, as `team.Role.view` has them; who is not
    `told_tools` is told of none. Where the call tags are no tokens, an argument that quotes one is escaped.
    """
    parts = [] if told_tools else ["{%- set tools = none -%}\n"]
    if reminder:
        last = f"[{{'role': 'user', 'content': {_quoted(reminder)}}}]"
        parts.append(_if("add_generation_prompt", f"{{%- set messages = messages + {last} -%}}") + "\n")
    if format.template:
        return "".join([*parts, "{{- '' }}" if parts else "", _own(format, format.template, instructions)])
    parts += [
        _tools(format),
        _calls(format.calls, () if tags_are_tokens else format.calls.tags),
        _system_text(format, instructions),
        _opening(format),
        "{%- for message in messages -%}\n",
        _reply(format),
        _results(format),
        _context(format),
        "{%- endfor -%}\n",
        f"{{%- if add_generation_prompt -%}}{_out(_header(format, speaker))}{{%- endif -%}}",
    ]
    return "".join(parts)


def _own(format: Format, template: Template, instructions: str) -> str:
    """Return the model's own template, after what `_own.OwnTemplate` does to a conversation before."""
    parts = []
    if instructions:
        parts.append(
            f"{{%- set own = {_quoted(instructions)} -%}}\n{{%- if messages and messages[0].role == 'system' -%}}\n"
            "{%- set own = (own + '\\n\\n' + messages[0].content) | trim -%}\n{%- set messages = messages[1:] -%}\n"
            "{%- endif -%}\n{%- set messages = [{'role': 'system', 'content': own}] + messages -%}\n"
        )
    if not template.tells_tools:
        before, _, after = format.results.item.partition("{content}")
        told = f"{_quoted(before)} + message.content + {_quoted(after)}"
        parts += [_tools(format), _calls(format.calls, format.calls.tags), _IN_TEXT.replace("TOLD", told)]
    if not template.takes_system:
        parts.append(_NO_SYSTEM)
    # What prints nothing keeps the white space that the template begins with from being cut.
    return "".join([*parts, "{{- '' }}" if parts else "", template.text])


def _tools(format: Format) -> str:
    """Return a macro for one tool, and one for the whole list."""
    style = format.tools
    told = _STYLES[style.style].replace("TYPES", json.dumps(_TYPES))
    before, _, after = style.item.partition("{tool}")
    between = _if("not loop.last", _out(style.between)) if style.between else ""
    item = f"{_out(before)}{{{{- told(tool) -}}}}{_out(after)}{between}"
    return (
        _SPEC.replace("EMPTY", _EMPTY).replace("TOLD", told)
        + f"{{%- macro tool_list() -%}}{_out(style.head)}{{%- for tool in tools -%}}{item}{{%- endfor -%}}"
        + f"{_out(style.tail)}{{%- endmacro -%}}\n"
    )


def _calls(syntax: CallSyntax, shielded: Iterable[str]) -> str:
    """Return a macro for the calls of a message."""
    opening, closing = ("[", "]") if syntax.listed else ("", "")
    first = _out(syntax.open + opening)
    once, each = _if("loop.first", first, _out(syntax.between)), _if("not loop.first", _out(syntax.between)) + first
    last = _out(closing + syntax.close)
    end = _if("loop.last", last) if syntax.listed else last
    return (
        (_IN_PYTHON if syntax.style == "python" else "")
        + "{%- macro calls_of(message) -%}\n{%- for call in message.tool_calls -%}\n"
        "{%- set f = call.function if call.function is defined else call -%}\n"
        f"{once if syntax.listed else each}{_call(syntax, shielded)}{end}\n"
        "{%- endfor -%}{%- endmacro -%}\n"
    )


def _call(syntax: CallSyntax, shielded: Iterable[str]) -> str:
    """Return what prints one call, `f`."""
    if syntax.style == "python":
        given = "{%- for key in f.arguments -%}" + _if("not loop.first", _out(", ")) + "{{- key + '=' -}}"
        return "{{- f.name + '(' -}}" + given + "{{- in_python(f.arguments[key]) -}}{%- endfor -%}{{- ')' -}}"
    comma, colon = (",", ":") if syntax.compact else (", ", ": ")
    apart = f"separators=({_quoted(comma)}, {_quoted(colon)})"
    safe = "".join(f" | replace({_quoted(tag)}, {_quoted(tag.replace('<', chr(92) + 'u003c'))})" for tag in shielded)
    written = f"f.arguments if f.arguments is string else (f.arguments or {{}}) | tojson({apart})"
    arguments = f"{{{{- {f'({written}){safe}' if safe else written} -}}}}"
    if syntax.style == "named":
        before, slot, after = syntax.mark.partition("{id}")
        identity = f"{{{{- call.id or '' -}}}}{_out(after)}" if slot else ""
        return f"{{{{- f.name -}}}}{_out(before)}{identity}{arguments}"
    head = "{" + json.dumps(syntax.name_key) + colon
    middle = comma + json.dumps(syntax.arguments_key) + colon
    own = f"{_out(comma + json.dumps(syntax.id_key) + colon)}{{{{- call.id | tojson -}}}}" if syntax.id_key else ""
    last = (_if("call.id", own) if own else "") + _out("}")
    return f"{_out(head)}{{{{- f.name | tojson{safe} -}}}}{_out(middle)}{arguments}{last}"


def _system_text(format: Format, instructions: str) -> str:
    """Return what sets `given` (whether there is a system text), `system` and the messages that are left."""
    style = format.system
    default = _quoted(style.default or "")
    if style.default_with_tools is not None:
        default = f"({_quoted(style.default_with_tools)} if tools else {default})"
    told = "messages[0].content" + (" | trim" if format.trim else "")
    lines = [
        "{%- set given = messages and messages[0].role == 'system' -%}\n",
        f"{{%- set system = ({told}) if given else {default} -%}}\n",
        "{%- set messages = messages[1:] if given else messages -%}\n",
    ]
    if instructions:
        own = _quoted(instructions)
        lines[1] = f"{{%- set system = ({own} + '\\n\\n' + messages[0].content) | trim if given else {own} -%}}\n"
    has_block = "true" if instructions or style.default is not None else "system != ''"
    lines.append(f"{{%- set has_block = {has_block} -%}}\n")
    lines.append("{%- set opens = messages and messages[0].role == 'user' -%}\n")
    return "".join(lines)


def _opening(format: Format) -> str:
    """Return what begins the text, its system block, and `lead`, which opens the first user message."""
    style, tools = format.system, format.tools
    gap = _if("system != ''", _out(tools.gap)) if tools.gap else ""
    own = format.block(style.place)
    block = (
        _out(own.open)
        + (_if("tools", _out(style.lead_with_tools)) if style.lead_with_tools else "")
        + f"{_out(style.lead)}{{{{- system -}}}}"
        + _if("here", gap + "{{- tool_list() -}}")
        + _out(style.tail + own.close)
    )
    to_user = "opens" if "user" in (style.place, tools.place) else "true" if tools.place == "block" else "false"
    apart = format.block(tools.role)
    listed = _if("tools", _out(apart.open) + "{{- tool_list() -}}" + _out(apart.close)) if tools.role else ""
    lead, needed = (
        _if("tools and not here", "{{- tool_list() -}}") if tools.place != "block" else "",
        "here or has_block",
    )
    if style.place == "user":
        joined = _if("system != ''", _out(style.gap))
        lead, needed = _if("opens", "{{- system -}}" + joined + lead), f"not opens and ({needed})"
    return (
        f"{_out(format.begin)}{{%- set here = tools and not {to_user} -%}}\n"
        f"{{%- set lead -%}}{lead}{{%- endset -%}}\n{_if(needed, block)}{listed}\n"
    )


def _reply(format: Format) -> str:
    """Return the branch for an assistant's message."""
    other = format.speaker_header or format.header.replace("{role}", "{speaker}")
    before, _, rest = other.partition("{speaker}")
    spoken = f"{_out(before)}{{{{- message.speaker -}}}}{_out(rest + format.reply_lead)}"
    header = _if("message.speaker and message.speaker != 'assistant'", spoken, _out(_header(format, "assistant")))
    after = _if("message.content", _out(format.calls.after_text)) if format.calls.after_text else ""
    calls = _if("message.tool_calls", after + "{{- calls_of(message) -}}")
    return (
        f"{{%- if message.role == 'assistant' -%}}\n{header}\n{{{{- message.content or '' -}}}}\n{calls}\n"
        f"{_close(format)}\n"
    )


def _results(format: Format) -> str:
    """Return the branch for a tool's message."""
    style = format.results
    slot = "{json}" if "{json}" in style.item else "{content}"
    before, _, after = style.item.partition(slot)
    content = "message.content | tojson" if slot == "{json}" else "message.content"
    item = f"{_with_id(before)}{{{{- {content} -}}}}{_with_id(after)}"
    block = format.block(style.role)
    head, close = _out(block.open), _out(block.close)
    if style.merged:
        head = _if("loop.first or loop.previtem.role != 'tool'", head, _out(style.between))
        close = _if("loop.last or loop.nextitem.role != 'tool'", close)
    return f"{{%- elif message.role == 'tool' -%}}\n{head}{item}{close}\n"


def _context(format: Format) -> str:
    """Return the branches for a user's and a later system message."""
    trim = " | trim" if format.trim else ""
    text = _if("loop.first and opens", "{{- lead -}}") + f"{{{{- message.content{trim} -}}}}"
    blocks = {
        role: _out(format.block(role).open) + text + _out(format.block(role).close) for role in ("user", "system")
    }
    return (
        f"{{%- elif message.role == 'user' -%}}\n{blocks['user']}\n"
        f"{{%- else -%}}\n{blocks['system']}\n{{%- endif -%}}\n"
    )


def _with_id(text: str) -> str:
    """Return what prints a part of a result's item, with the id of the message's call."""
    before, slot, after = text.partition("{id}")
    return _out(before) + ("{{- message.tool_call_id or '' -}}" if slot else "") + _out(after)


def _close(format: Format) -> str:
    return _out(format.end + format.gap)


def _header(format: Format, speaker: str) -> str:
    if speaker == "assistant":
        return format.header.replace("{role}", format.assistant) + format.reply_lead
    header = format.speaker_header or format.header.replace("{role}", "{speaker}")
    return header.replace("{speaker}", speaker) + format.reply_lead


def _if(condition: str, then: str, otherwise: str = "") -> str:
    """Return what prints `then` where the condition holds, else `otherwise`."""
    if then == otherwise:
        return then
    return f"{{%- if {condition} -%}}{then}" + (f"{{%- else -%}}{otherwise}" if otherwise else "") + "{%- endif -%}"


def _out(text: str) -> str:
    """Return what prints `text` as it is."""
    return f"{{{{- {_quoted(text)} -}}}}" if text else ""


def _quoted(text: str) -> str:
    """Return `text` as a Jinja string."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n").replace("\r", "\\r")
    return f"'{escaped}'"
