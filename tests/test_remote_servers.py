"""The remote engine against real servers: our own, and llama.cpp's in an interpreter that has it (LLAMA_PYTHON)."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from serving import THINK, running, scripted, team_models

from rolecraft import engine, smollm2, team
from rolecraft.commands import read, serve
from rolecraft.errors import ContextFull, NotFound
from rolecraft.gguf import read_tokenizer
from rolecraft.remote import RemoteEngine, Settings, Wishes, resolve
from rolecraft.types import Engine, Message, Prompt, Sampling, ToolCall, ToolSpec

KEY = {"type": "object", "properties": {"key": {"type": "string"}}, "required": ["key"]}
TOOLS = (ToolSpec("read_debt", "debt of a person", KEY), ToolSpec("find_owner", "owner of a house", KEY))
QUESTIONS = ("What is the debt of Plalples?", "Who owns Grontif?", "What does the owner of Grontif owe?", "Say hello.")
MOR = ("reasoner", "executor", "summarizer")

PYTHON = os.environ.get("LLAMA_PYTHON", sys.executable)
SERVER = """
import sys, time, xllamacpp
settings = xllamacpp.CommonParams()
settings.model.path, settings.n_ctx, settings.n_parallel = sys.argv[1], 1024, 1
settings.warmup, settings.port, settings.use_jinja, settings.cpuparams.n_threads = False, 0, True, 1
server = xllamacpp.Server(settings)
print("listening", server.listening_address, flush=True)
sys.stdin.read()
"""


def replies(player: Engine, *prompts: Prompt) -> list[tuple]:
    async def all_of_them() -> list[tuple]:
        found = [(await player.complete(prompt))[0] for prompt in prompts]
        return [
            (m.content, [(c.name, c.arguments) for c in m.tool_calls], one.turn.stop)
            for one in found
            if (m := one.message)
        ]

    return asyncio.run(all_of_them())


def test_a_team_on_our_own_server_plays_each_role_by_its_own_model(nano_tokenizer):
    served = scripted(nano_tokenizer)
    with running(team_models(served)) as url:
        settings = resolve(Settings(url), Wishes(), MOR)
        assert (settings.dialect, settings.tools) == ("rolecraft", "native")
        question = (Message("user", "What is the debt of Plalples?"),)
        with RemoteEngine(settings) as player:
            (thought, _, _), (_, calls, _) = replies(
                player,
                Prompt(question, TOOLS, "reasoner"),
                Prompt((*question, Message("assistant", THINK, speaker="reasoner")), TOOLS, "executor"),
            )
    assert (thought, calls) == (THINK, [("read_debt", {"key": "Plalples"})])
    asked = served.prompts[-1]
    assert asked.speaker == "executor"
    assert [(m.role, m.speaker) for m in asked.messages[-2:]] == [("user", None), ("assistant", "reasoner")]


def test_the_nano_base_behind_our_own_server_writes_what_it_writes_in_this_process():
    prompts = [Prompt((Message("user", q),), TOOLS, sampling=Sampling(max_tokens=24)) for q in QUESTIONS]
    said = Message("assistant", "", (ToolCall("read_debt", {"key": "Plalples"}, "call_0"),), speaker="assistant")
    result = Message("tool", "3809", tool_call_id="call_0", name="read_debt")
    prompts.append(Prompt((Message("user", QUESTIONS[0]), said, result), TOOLS, sampling=Sampling(max_tokens=24)))
    prompts.append(Prompt(prompts[0].messages, TOOLS, choice="required", sampling=Sampling(max_tokens=60)))
    with engine.open_local("nano") as local:
        here = replies(local, *prompts)
    options = read(["serve", "--max-context", "1024"])[1]
    with serve.open_models("nano", team.find("single"), options) as served, running(served) as url:
        settings = resolve(Settings(url), Wishes(("nano",)), ("assistant",))
        with RemoteEngine(settings) as player:
            assert replies(player, *prompts) == here
    assert here[-1][1]


@contextmanager
def llama(model: Path) -> Iterator[str]:
    """Serve a GGUF file with llama.cpp; yield its address, without /v1."""
    has = subprocess.run([PYTHON, "-c", "import xllamacpp"], capture_output=True, check=False, timeout=300)
    if has.returncode:
        pytest.skip(f"{PYTHON} has no xllamacpp; run `make .venv-llama/ready` with a network, or set LLAMA_PYTHON")
    command = [PYTHON, "-c", SERVER, str(model)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout is not None
            yield next(line.split()[1] for line in process.stdout if line.startswith("listening"))
        finally:
            process.kill()


@pytest.fixture(scope="module")
def model() -> Path:
    try:
        return smollm2.fetch()
    except NotFound as error:
        pytest.skip(f"no GGUF file of SmolLM2: {error}")


@pytest.mark.slow
def test_llama_cpp_plays_smollm2_whose_template_drops_tools_with_them_in_the_prompt(model):
    prompt = Prompt((Message("user", "What is the debt of Plalples?"),), TOOLS, sampling=Sampling(max_tokens=40))
    with llama(model) as url:
        settings = resolve(Settings(f"{url}/v1"), Wishes(), ("assistant",))
        assert (settings.dialect, settings.tools) == ("openai", "prompt")
        with RemoteEngine(settings) as player:
            (one,) = asyncio.run(player.complete(prompt))
            streamed = asyncio.run(_streamed(player, prompt))
            long = Prompt((Message("user", "a long tale " * 2000),), TOOLS)
            with pytest.raises(ContextFull, match="answered 400"):
                asyncio.run(player.complete(long))
    assert one.turn.usage.prompt > 150  # the tools are among them
    assert one.message == streamed


async def _streamed(player: RemoteEngine, prompt: Prompt) -> Message:
    *_, last = [delta async for delta in player.stream(prompt)]
    return last.completion.message


WORDS = "Hello|1234567|3.14159|2024-05-01|12,000.50|it's|IT'S|don't|we'll|'s|'S|!!!|...|x=1;y=22;z=333|a_b_c"
WORDS += '|100%|http://a.b/c?d=e|\\n|"quoted"|<|[]|{"a": 1}|def f(x):\n    return x|<im_end>|im_end|>'
MARKS = "<|im_end|> <|im_start|> <|endoftext|> <tool_call> </tool_call> <| |"
UNICODE = "é ü ß е\u0301 中文字符 日本語 😀 👩\u200d👩\u200d👧 ﬁ ١٢٣ ½ Ⅷ ² € — \u200b \ufeff"
SPACES = (" ", "  ", "   ", "\n", "\n\n", "\t", "\r\n", "\u00a0", "\x00")
PIECES = (*WORDS.split("|"), *MARKS.split(), *UNICODE.split(), *SPACES)


@pytest.mark.slow
def test_a_gguf_files_tokenizer_gives_llama_cpps_ids_on_a_thousand_texts(model):
    drawn = random.Random(5)
    texts = [
        "".join(drawn.choice(PIECES) + drawn.choice(("", "", " ")) for _ in range(drawn.randint(1, 12)))
        for _ in range(1000)
    ]
    tokenizer = read_tokenizer(model)
    with llama(model) as url:
        theirs = [_ids(f"{url}/tokenize", text) for text in texts]
    ours = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
    assert [text for text, one, other in zip(texts, ours, theirs, strict=True) if one != other] == []


def _ids(url: str, text: str) -> list[int]:
    body = json.dumps({"content": text, "add_special": False, "parse_special": True}).encode()
    request = urllib.request.Request(url, body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)["tokens"]
