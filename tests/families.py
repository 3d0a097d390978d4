"""The families whose chat formats are there: where each one's own template is found, its tokens, and conversations.

Templates are read where they are published and checked by sha256; none is kept here. Those of llama.cpp come in the
source package of llama-cpp-python, Phi-4-mini's in a docstring of bfcl-eval, indented: `python tests/families.py`
downloads both, 79 MB, and unpacks them.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import random
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from conftest import LLAMA_SPLIT, QWEN_SPLIT, train
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from rolecraft.store import cache
from rolecraft.types import Message, ToolCall, ToolSpec

_LLAMA_CPP, _BFCL = "llama-cpp-python==0.3.36", "bfcl-eval==2026.3.23"
_CHATML = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_THINK = ("<think>", "</think>")
CALLS = ("<tool_call>", "</tool_call>")


@dataclass(frozen=True)
class Family:
    """A template and what of it `format` equals.

    `source` is `trl` (its wheel), `llama.cpp` or `bfcl` (see above), or `gguf`: a base's file, dequantised before, its
    tokenizer the real one. Others are byte-level, with the family's `special` and `marks` tokens. `in_system`: the
    template takes tools as JSON beside the system text. `moves`: it puts these to the last question.
    `always_system`: it has a system text of its own that the format does not assume.
    """

    format: str
    source: str
    file: str
    sha256: str
    special: tuple[str, ...] = _CHATML
    marks: tuple[str, ...] = ()
    split: str = QWEN_SPLIT
    eos: str = "<|im_end|>"
    bos: str | None = None
    tools: bool = True
    calls: int = 3
    beside: bool = True
    results: bool = True
    alternates: bool = False
    thoughts: bool = False
    system: bool = True
    whole: bool = True
    turns: int = 3
    in_system: bool = False
    moves: tuple[str, ...] = ()
    always_system: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.format}-{Path(self.file).stem}"


def template(family: Family) -> str:
    """Return the family's template; skips the test where it is not to be had."""
    path = _place(family)
    if path is None or not path.is_file():
        pytest.skip(f"no {family.file}: {_REMEDIES[family.source]}")
    text = path.read_bytes()
    assert hashlib.sha256(text).hexdigest() == family.sha256, f"{path} is another template"
    return text.decode()


_REMEDIES = {
    "trl": "pip install --no-deps trl",
    "llama.cpp": "python tests/families.py",
    "bfcl": "python tests/families.py",
    "gguf": "load the base once",
}


def _place(family: Family) -> Path | None:
    if family.source == "trl":
        found = importlib.util.find_spec("trl")
        return Path(found.origin).parent / "chat_templates" / family.file if found and found.origin else None
    if family.source in ("llama.cpp", "bfcl"):
        return _unpacked() / family.file
    return next(iter(sorted((cache() / "gguf").glob(f"{family.file}-*/chat_template.jinja"))), None)


def _unpacked() -> Path:
    given = os.environ.get("ROLECRAFT_CHAT_TEMPLATES")
    return Path(given) if given else cache() / "chat-templates"


def tokenizer(family: Family) -> PreTrainedTokenizerFast:
    """Return the family's own tokenizer where it is there, else a byte-level one; both with the family's template."""
    own = template(family)
    if family.source == "gguf":
        place = _place(family)
        assert place is not None
        made = AutoTokenizer.from_pretrained(str(place.parent))
    else:
        named = {"eos_token": family.eos, **({"bos_token": family.bos} if family.bos else {})}
        made = train(family.split, list(family.special), family.marks, **named)
    made.chat_template = own
    return made


def official(
    tokenizer: PreTrainedTokenizerFast, family: Family, messages: Sequence[Message], tools: Any, *, prompt: bool
) -> tuple[int, ...]:
    """Return the ids that the family's own template makes of a conversation, of `tools` as a caller wrote them."""
    options = {"date_string": "26 Jul 2024", **family.options}
    rows = [row(message) for message in messages]
    if tools and family.in_system:
        rows[0]["tools"] = json.dumps([tool["function"] for tool in tools], ensure_ascii=False)
    text = tokenizer.apply_chat_template(
        rows,
        tools=list(tools) or None,
        tokenize=False,
        add_generation_prompt=prompt,
        **options,
    )
    text = text.replace(f"Today's Date: {date.today():%B %d, %Y}", "Today's Date: July 26, 2024")
    return tuple(tokenizer.encode(text, add_special_tokens=False))


def row(message: Message) -> dict[str, Any]:
    """Return a message as `transformers` takes it."""
    made: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        made["tool_calls"] = [
            {"type": "function", "id": call.id, "function": {"name": call.name, "arguments": dict(call.arguments)}}
            for call in message.tool_calls
        ]
    if message.tool_call_id:
        made["tool_call_id"] = message.tool_call_id
    return made


def as_json(tools: Sequence[ToolSpec]) -> list[dict[str, Any]]:
    """Return tools as the OpenAI wire has them."""
    return [
        {"type": "function", "function": {"name": t.name, "description": t.description, "parameters": t.parameters}}
        for t in tools
    ]


# ---- conversations

TOOLS = (
    ToolSpec(
        "weather",
        "Wetter für <eine> Stadt & 'mehr'",
        {"type": "object", "properties": {"city": {"type": "string", "description": 'a "city"'}}, "required": ["city"]},
    ),
    ToolSpec("now", "the time"),
)
_WORDS = ("Plalples", "3809", '{"a": 1}', "}", "...", "\n", "\n\n", " ", "é", "日本", "don't", "<x>", "x\t", "\\", "'")


def conversations(family: Family, count: int = 200, seed: int = 0) -> list[tuple[tuple[Message, ...], tuple]]:
    """Return conversations with their tools, of every kind that the family's template takes as it is."""
    draw = random.Random(f"{family} {seed}")
    return [_conversation(family, draw) for _ in range(count)]


def _conversation(family: Family, draw: random.Random) -> tuple[tuple[Message, ...], tuple]:
    tools = TOOLS if family.tools and draw.random() < 0.6 else ()
    always = family.always_system or (bool(tools) and family.in_system)
    head = [Message("system", _text(draw))] if always or (family.system and draw.random() < 0.5) else []
    messages = [*head, Message("user", _text(draw))]
    ends = not (head and "system" in family.moves)
    asks = ends and not (tools and "tools" in family.moves)
    for left in reversed(range(draw.randint(0, family.turns) if ends else 0)):
        if family.calls and (not asks or draw.random() < 0.5):
            messages += _acted(family, draw)
            if family.alternates and left and asks:
                messages += [Message("assistant", _text(draw)), Message("user", _text(draw))]
        elif messages[-1].role != "assistant":
            messages += [Message("assistant", _text(draw)), Message("user", _text(draw))]
    if family.thoughts:
        last = max(place for place, message in enumerate(messages) if message.role == "user")
        messages[last + 1 :] = [_thinking(message, draw) for message in messages[last + 1 :]]
    if messages[-1].role != "assistant" and ends and draw.random() < 0.4:
        thought = f"<think>\n{_text(draw)}\n</think>\n\n" if family.thoughts else ""
        messages.append(Message("assistant", thought + _text(draw)))
    return tuple(messages), tools


def _acted(family: Family, draw: random.Random) -> list[Message]:
    calls = tuple(_call(draw) for _ in range(draw.randint(1, family.calls)))
    said = _text(draw) if family.beside and draw.random() < 0.5 else ""
    results = calls if family.results else ()
    return [
        Message("assistant", said, tool_calls=calls),
        *(Message("tool", _text(draw), tool_call_id=call.id, name=call.name) for call in results),
    ]


def _thinking(message: Message, draw: random.Random) -> Message:
    if message.role != "assistant":
        return message
    after = "\n\n" if message.content or not message.tool_calls else "\n"
    return message.edited(content=f"<think>\n{_text(draw)}\n</think>{after}{message.content}")


def _call(draw: random.Random) -> ToolCall:
    names = draw.sample(("city", "days", "strict", "note", "unit"), draw.randrange(3))
    return ToolCall(
        draw.choice(("weather", "now")), {name: _value(draw) for name in names}, f"{draw.randrange(10**9):09}"
    )


def _value(draw: random.Random) -> Any:
    return draw.choice((_text(draw), draw.randint(-99, 9999), None, True, 2.5, [_text(draw), 3], {"x": _text(draw)}))


def _text(draw: random.Random) -> str:
    """Return a text that no template changes: no outer white space, no marker."""
    return "".join(draw.choices(_WORDS, k=draw.randint(1, 6))).strip() or "x"


_LLAMA = tuple("<|begin_of_text|> <|end_of_text|> <|start_header_id|> <|end_header_id|> <|eom_id|> <|eot_id|>".split())
_GRANITE = ("<|end_of_text|>", "<|start_of_role|>", "<|end_of_role|>")
_PHI = ("<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|tool|>")

_PHI4 = (*_PHI, "<|/tool|>", "<|tool_call|>", "<|/tool_call|>", "<|tool_response|>")
_LFM = (
    *("<|startoftext|>", *_CHATML, "<|tool_list_start|>", "<|tool_list_end|>", "<|tool_call_start|>"),
    *("<|tool_call_end|>", "<|tool_response_start|>", "<|tool_response_end|>"),
)
MISTRAL = tuple(
    "<s> </s> [INST] [/INST] [SYSTEM_PROMPT] [/SYSTEM_PROMPT] [AVAILABLE_TOOLS] [/AVAILABLE_TOOLS] "
    "[TOOL_CALLS] [ARGS] [CALL_ID] [TOOL_RESULTS] [TOOL_CONTENT] [/TOOL_RESULTS] [THINK] [/THINK]".split()
)
_SMOLLM3_SPECIAL = (*_CHATML, "<|end_of_text|>")

FAMILIES = (
    Family(
        "hermes",
        "gguf",
        "qwen-coder-0.5b",
        "cd8e9439f0570856fd70470bf8889ebd8b5d1107207f67a5efb46e342330527f",
    ),
    Family(
        "hermes",
        "trl",
        "qwen2_5.jinja",
        "cd8e9439f0570856fd70470bf8889ebd8b5d1107207f67a5efb46e342330527f",
        marks=CALLS,
    ),
    Family(
        "qwen3",
        "trl",
        "qwen3.jinja",
        "a55ee1b1660128b7098723e0abcd92caa0788061051c62d51cbe87d9cf1974d8",
        marks=(*_THINK, *CALLS),
        thoughts=True,
    ),
    Family(
        "qwen3",
        "trl",
        "qwen3_instruct_2507.jinja",
        "64f85b198065d0fba2a81f37e10ed68161ce2c19a754c7100e67e0ca2ee9c326",
        marks=(*_THINK, *CALLS),
    ),
    Family(
        "qwen3_nothink",
        "trl",
        "qwen3.jinja",
        "a55ee1b1660128b7098723e0abcd92caa0788061051c62d51cbe87d9cf1974d8",
        marks=(*_THINK, *CALLS),
        calls=0,
        turns=0,
        options={"enable_thinking": False},
    ),
    Family(
        "smollm2",
        "gguf",
        "smollm2",
        "872be49dbb638044ad01b60388f48d469ff2980e5f0dccdc22ec907db54d0788",
        tools=False,
        calls=0,
    ),
    Family(
        "smollm3",
        "llama.cpp",
        "HuggingFaceTB-SmolLM3-3B.jinja",
        "19eacf64569032f07644ea92c8e2a87af06ee7008147557302c31e474912ca97",
        _SMOLLM3_SPECIAL,
        _THINK,
        tools=False,
        calls=0,
    ),
    Family(
        "smollm3_nothink",
        "llama.cpp",
        "HuggingFaceTB-SmolLM3-3B.jinja",
        "19eacf64569032f07644ea92c8e2a87af06ee7008147557302c31e474912ca97",
        _SMOLLM3_SPECIAL,
        _THINK,
        tools=False,
        calls=0,
        options={"enable_thinking": False},
    ),
    *(
        Family(
            "llama3",
            "trl",
            file,
            sha256,
            _LLAMA,
            split=LLAMA_SPLIT,
            eos="<|eot_id|>",
            bos="<|begin_of_text|>",
            calls=1,
            beside=False,
        )
        for file, sha256 in (
            ("llama3_1.jinja", "e10ca381b1ccc5cf9db52e371f3b6651576caee0a630b452e2816b2d404d4b65"),
            ("llama3_2.jinja", "5816fce10444e03c2e9ee1ef8a4a1ea61ae7e69e438613f3b17b69d0426223a4"),
        )
    ),
    *(
        Family(
            "phi3", "trl", file, sha256, _PHI, split=LLAMA_SPLIT, eos="<|endoftext|>", tools=False, calls=0, whole=False
        )
        for file, sha256 in (
            ("phi3.jinja", "dcaee66df77bfbb789ec541fe713218da30225a526f1db97138fc39ee6dc56aa"),
            ("phi3_5.jinja", "78d976a442bcde2f0be15aafbb8e3050e1104f86732266f68403251b89982a90"),
        )
    ),
    Family(
        "phi4_mini",
        "bfcl",
        "phi-4-mini.jinja",
        "febf589225c9728ab791f52e8897d7607a823d45368f0a4c92fa68997b40cce9",
        _PHI4,
        split=LLAMA_SPLIT,
        eos="<|endoftext|>",
        calls=0,
        whole=False,
        in_system=True,
    ),
    Family(
        "gemma3",
        "trl",
        "gemma3.jinja",
        "7de1c58e208eda46e9c7f86397df37ec49883aeece39fb961e0a6b24088dd3c4",
        ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"),
        eos="<eos>",
        bos="<bos>",
        tools=False,
        calls=0,
    ),
    Family(
        "granite",
        "llama.cpp",
        "ibm-granite-granite-4.0.jinja",
        "9524df67b77a7b25a2dfee898f75b316a157eb9d855b51e32aeac79d7c8a83ce",
        _GRANITE,
        CALLS,
        eos="<|end_of_text|>",
    ),
    Family(
        "granite_4_1",
        "llama.cpp",
        "ibm-granite-granite-4.1.jinja",
        "fed2756d2d24e127b951dcf139d0b03ab7db8ef23a456128ebc9c2db4901d476",
        _GRANITE,
        CALLS,
        eos="<|end_of_text|>",
    ),
    Family(
        "granite_3",
        "llama.cpp",
        "ibm-granite-granite-3.3-2B-Instruct.jinja",
        "3c71df5f659987462c882bf9e295b597dc19902467a7312ea382c5896681bc02",
        (*_GRANITE, "<|tool_call|>"),
        eos="<|end_of_text|>",
        calls=0,
    ),
    *(
        Family(
            format, source, file, sha256, _LFM, _THINK, LLAMA_SPLIT, bos="<|startoftext|>", calls=calls, thoughts=own
        )
        for format, source, file, sha256, calls, own in (
            ("lfm2", "trl", "lfm2.jinja", "cef187400d62a59507aab3a642ea9a8d2a2ef263562bc3430560e116945273cf", 0, False),
            (
                "lfm2",
                "trl",
                "lfm2_v2.jinja",
                "5504d163d879bfb6fd4135b7fa3d56768b2e69dd718338f7b146750289f46ab0",
                3,
                False,
            ),
            (
                "lfm2_5",
                "trl",
                "lfm2_2_5_vl.jinja",
                "86f4770449a4797c9b4212d110b0cc70fb993c1ce960095bcfb12eea22f61cca",
                3,
                True,
            ),
            (
                "lfm2_5",
                "trl",
                "lfm2_2_5_v2.jinja",
                "c5b67247c9f736f6c40eaa91ae1ef27dc67f5b041eedaadb97a1bea5030fb0ff",
                0,
                True,
            ),
            (
                "lfm2_5",
                "llama.cpp",
                "LFM2.5-Instruct.jinja",
                "f05bf4b967dc993bdc7a2fe6e43759ee218eb0eb340d68b063e1c4f8ad148176",
                0,
                False,
            ),
        )
    ),
    Family(
        "mistral",
        "llama.cpp",
        "unsloth-mistral-Devstral-Small-2507.jinja",
        "039a4710e2aabaa79e85a233fa3daa4fbc030a4a8dc218cb7f34fb0c4b8c13b1",
        MISTRAL,
        eos="</s>",
        bos="<s>",
        always_system=True,
    ),
    Family(
        "mistral_small",
        "llama.cpp",
        "Mistral-Small-3.2-24B-Instruct-2506.jinja",
        "5b8f31f11198696548d544dbe424a3c1ef244d00a475f4e1bffb351fda085608",
        MISTRAL,
        eos="</s>",
        bos="<s>",
        beside=False,
        alternates=True,
        moves=("tools",),
        always_system=True,
    ),
    Family(
        "ministral",
        "llama.cpp",
        "mistralai-Ministral-3-14B-Reasoning-2512.jinja",
        "39f03c383413f531fd302c06c7e982ad98c83f0657a8339ae25478ccb81fdcda",
        MISTRAL,
        eos="</s>",
        bos="<s>",
        alternates=True,
    ),
    Family(
        "mistral_nemo",
        "llama.cpp",
        "mistralai-Mistral-Nemo-Instruct-2407.jinja",
        "e4676cb56dffea7782fd3e2b577cfaf1e123537e6ef49b3ec7caa6c095c62272",
        MISTRAL,
        eos="</s>",
        bos="<s>",
        beside=False,
        alternates=True,
        moves=("tools", "system"),
    ),
)


def fetch() -> None:
    """Download the packages that hold templates, and unpack these; nothing of the packages is installed or run."""
    _unpacked().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder]
        subprocess.run([*command, "--no-binary", _LLAMA_CPP.partition("==")[0], _LLAMA_CPP], check=True)
        subprocess.run([*command, _BFCL], check=True)
        with tarfile.open(next(Path(folder).glob("*.tar.gz"))) as packed:
            for member in packed:
                if "/models/templates/" in member.name and member.name.endswith(".jinja"):
                    file = packed.extractfile(member)
                    assert file is not None
                    (_unpacked() / Path(member.name).name).write_bytes(file.read())
        with zipfile.ZipFile(next(Path(folder).glob("bfcl*.whl"))) as wheel:
            code = wheel.read("bfcl_eval/model_handler/local_inference/phi_fc.py").decode()
    lines = code.partition('"chat_template":')[2].partition('"""')[0].splitlines()
    (_unpacked() / "phi-4-mini.jinja").write_text("".join(map(str.strip, lines)), encoding="utf-8")


if __name__ == "__main__":
    fetch()
