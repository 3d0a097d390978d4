"""The compact format of the embedded nano base: a description before its name, no space before identifiers."""

from __future__ import annotations

from rolecraft.renderers._format import CallSyntax, Format, ToolList

FORMAT = Format(
    header="<|im_start|>{role}\n",
    end="<|im_end|>",
    stops=("<|endoftext|>",),
    tools=ToolList(head="Tools:", item="\n{tool}", style="signature", gap="\n"),
    calls=CallSyntax(arguments_key="args", compact=True, begins=r"\{"),
    lenient=False,
)
