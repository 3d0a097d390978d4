"""Other clients against the server, in an interpreter that has them: CLIENTS_PYTHON, else this one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from serving import ANSWER, ENOUGH, QUESTION, THINK, TOOLS, debts, running, scripted, team_models

from rolecraft import team
from rolecraft.engine import LocalEngine, Settings
from rolecraft.server import models

PYTHON = os.environ.get("CLIENTS_PYTHON", sys.executable)

LITELLM = """
import json, os, sys
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
import litellm
url, question, tools = json.loads(sys.argv[1])
ask = dict(model="openai/nano:team", api_base=url, api_key="none", tools=tools, max_retries=0)
first = litellm.completion(messages=[question], **ask)
asked = first.choices[0].message
result = {"role": "tool", "tool_call_id": asked.tool_calls[0].id, "content": "3809"}
told = []
for form in (asked, asked.model_dump()):
    told.append(litellm.completion(messages=[question, form, result], **ask).choices[0].message)
chunks = list(litellm.completion(messages=[question], stream=True, stream_options={"include_usage": True}, **ask))
joined = litellm.stream_chunk_builder(chunks, messages=[question])
try:
    litellm.completion(messages=[question], temperature=9, **ask)
except litellm.BadRequestError as error:
    refused = str(error)
print(json.dumps({
    "reasoning": asked.reasoning_content,
    "arguments": json.loads(asked.tool_calls[0].function.arguments),
    "finish": first.choices[0].finish_reason,
    "answers": [message.content for message in told],
    "streamed": [joined.choices[0].message.reasoning_content, joined.choices[0].finish_reason],
    "streamed_call": json.loads(joined.choices[0].message.tool_calls[0].function.arguments),
    "usage": joined.usage.completion_tokens,
    "refused": refused,
}))
"""

SMOLAGENTS = """
import json, sys
from smolagents import OpenAIServerModel, ToolCallingAgent, tool
url, question, _ = json.loads(sys.argv[1])

@tool
def read_debt(key: str) -> int:
    '''Debt of a person.

    Args:
        key: the person
    '''
    return 3809

answers = []
for stream in (False, True):
    model = OpenAIServerModel("nano:team", api_base=url, api_key="none")
    agent = ToolCallingAgent(tools=[read_debt], model=model, max_steps=4, verbosity_level=0, stream_outputs=stream)
    answers.append(agent.run(question["content"]))
print()
print(json.dumps({"answers": answers, "steps": len(agent.memory.steps)}))
"""


STRUCTURED = """
from pydantic import BaseModel, Field

class Person(BaseModel):
    name: str = Field(max_length=8)
    age: int
"""

LANGCHAIN = f"""
import json, sys
from langchain_openai import ChatOpenAI
{STRUCTURED}
url, question, _ = json.loads(sys.argv[1])
told = []
for responses in (False, True):
    chat = ChatOpenAI(model="tiny", base_url=url, api_key="none", max_retries=0, use_responses_api=responses)
    for method in ("json_schema", "function_calling"):
        told.append(type(chat.with_structured_output(Person, method=method).invoke(question["content"])).__name__)
print(json.dumps({{"kinds": told}}))
"""

PYDANTIC_AI = f"""
import json, sys
from pydantic_ai import Agent, NativeOutput, ToolOutput
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider
{STRUCTURED}
url, question, _ = json.loads(sys.argv[1])
provider = OpenAIProvider(base_url=url, api_key="none")
told = []
for kind in (OpenAIChatModel, OpenAIResponsesModel):
    for output in (NativeOutput(Person), ToolOutput(Person)):
        answer = Agent(kind("tiny", provider=provider), output_type=output).run_sync(question["content"])
        told.append(type(answer.output).__name__)
print(json.dumps({{"kinds": told}}))
"""


def run(script: str, package: str, url: str, folder: Path) -> dict:
    has = subprocess.run([PYTHON, "-c", f"import {package}"], capture_output=True, check=False, timeout=300)
    if has.returncode:
        pytest.skip(f"{PYTHON} has no {package}; run `make .venv-clients/ready` with a network, or set CLIENTS_PYTHON")
    told = json.dumps([url, QUESTION, TOOLS])
    file = folder / "client.py"  # smolagents reads the source of its tools
    file.write_text(script)
    done = subprocess.run([PYTHON, str(file), told], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_litellm_plays_a_whole_episode(nano_tokenizer, tmp_path):
    with running(team_models(scripted(nano_tokenizer))) as url:
        told = run(LITELLM, "litellm", url, tmp_path)
    assert told["reasoning"] == THINK
    assert told["arguments"] == told["streamed_call"] == {"key": "Plalples"}
    assert told["finish"] == "tool_calls"
    assert told["answers"] == [ANSWER, ANSWER]
    assert told["streamed"] == [THINK, "tool_calls"]
    assert told["usage"] > 0
    assert "temperature" in told["refused"]


@pytest.mark.slow
def test_smolagents_plays_a_whole_episode(nano_tokenizer, tmp_path):
    def script(prompt):
        if prompt.speaker == "executor" and any("3809" in message.content for message in prompt.messages):
            return '{"name":"final_answer","args":{"answer":"3809"}}'
        return ENOUGH if prompt.speaker == "summarizer" else debts(prompt)

    engine = scripted(nano_tokenizer, script, context=100_000)
    with running(team_models(engine)) as url:
        told = run(SMOLAGENTS, "smolagents", url, tmp_path)
    assert told["answers"] == ["3809", "3809"]
    assert {prompt.choice for prompt in engine.prompts if prompt.speaker == "executor"} == {"required"}


@pytest.mark.slow
@pytest.mark.parametrize(("script", "package"), [(LANGCHAIN, "langchain_openai"), (PYDANTIC_AI, "pydantic_ai")])
def test_a_client_gets_its_own_type_from_a_random_model(nano_tokenizer, tmp_path, script, package):
    with LocalEngine(tiny.loaded(nano_tokenizer), Settings(max_requests=4, max_context=512)) as engine:
        player = models.LoadedEngine(engine, engine.loaded.renderer)
        served = models.served_models("tiny", team.find("mor", instructions=False), player, player)
        with running(served) as url:
            told = run(script, package, url, tmp_path)
    assert told["kinds"] == ["Person"] * 4
