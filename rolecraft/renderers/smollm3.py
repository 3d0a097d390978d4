"""SmolLM3, thinking: a system block of metadata and instructions, ChatML, and Hermes' tool calls.

Equal to the template that llama.cpp and GGUF files carry without tools, id for id, but for what `hermes.py` lists;
`/think` and `/no_think` in a system text (the template takes them out and obeys; name `smollm3_nothink` instead), its
outer white space, and a system message that is not the first (the template drops it). The original template tells
today's date beside, has no end after its system block unless there are tools, and takes these apart from others, as
`xml_tools`: here they stand where it tells them, as JSON, not as Python prints them. Results are a user's block.
"""

from __future__ import annotations

from rolecraft.renderers._format import Format, Results, SystemBlock, ToolList
from rolecraft.renderers.hermes import FORMAT as HERMES

_LEAD = """## Metadata

Knowledge Cutoff Date: June 2025
Reasoning Mode: /think

## Custom Instructions

"""
_DEFAULT = (
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face. Your role as an assistant involves "
    "thoroughly exploring questions through a systematic thinking process before providing the final precise and "
    "accurate solutions. This requires engaging in a comprehensive cycle of analysis, summarizing, exploration, "
    "reassessment, reflection, backtracking, and iteration to develop well-considered thinking process. Please "
    "structure your response into two main sections: Thought and Solution using the specified format: <think> Thought "
    "section </think> Solution section. In the Thought section, detail your reasoning process in steps. Each step "
    "should include detailed considerations such as analysing questions, summarizing relevant findings, brainstorming "
    "new ideas, verifying the accuracy of the current steps, refining any errors, and revisiting previous steps. In "
    "the Solution section, based on various attempts, explorations, and reflections from the Thought section, "
    "systematically present the final solution that you deem correct. The Solution section should be logical, "
    "accurate, and concise and detail necessary steps needed to reach the conclusion."
)
_HEAD = """### Tools

You may call one or more functions to assist with the user query.
You are provided with function signatures within <tools></tools> XML tags:

<tools>
"""
_TAIL = HERMES.tools.tail.removeprefix("\n")

FORMAT = Format(
    header=HERMES.header,
    end=HERMES.end,
    gap=HERMES.gap,
    stops=("<|endoftext|>", "<|end_of_text|>"),
    detect=("<|im_start|>", "<|im_end|>", "<think>", "<|end_of_text|>"),
    system=SystemBlock(lead=_LEAD, default=_DEFAULT, tail="\n\n"),
    tools=ToolList(head=_HEAD, item="{tool}\n", tail=_TAIL, gap="\n\n"),
    calls=HERMES.calls,
    results=Results(role="user"),
)
