"""Sentence frames of requests to a database: to read a value, set it, add a row, set two values, copy one."""

from __future__ import annotations

from rolecraft.benchmarks.toolworld.asking import Frames

FIND = Frames(
    wording="db-find",
    training=(
        "What is the {topic} of the {kind} {entity}?",
        "Tell me the {topic} of {entity}, a {kind}.",
        "I need the {topic} of the {kind} {entity}.",
        "Which {topic} does the {kind} {entity} have?",
    ),
    held_out=("For the {kind} {entity}, state its {topic}.", "{entity} is a {kind}; how much is its {topic}?"),
)
SET = Frames(
    wording="db-set",
    training=(
        "Set the {topic} of the {kind} {entity} to {number}.",
        "Change the {topic} of {entity}, a {kind}, to {number}.",
        "The {kind} {entity} has a new {topic}: {number}. Write it down.",
        "Make {number} the {topic} of the {kind} {entity}.",
        "Update the {kind} {entity}: its {topic} is {number} now.",
    ),
    held_out=(
        "From today the {kind} {entity} counts {number} as its {topic}; amend the table.",
        "Overwrite whatever {topic} the {kind} {entity} had by {number}.",
    ),
)
ADD = Frames(
    wording="db-add",
    training=(
        "Add the {kind} {entity} with {topic} {number} and {second} {other}.",
        "There is a new {kind}, {entity}: {topic} {number}, {second} {other}. Add it.",
        "Insert a {kind} called {entity} whose {topic} is {number} and whose {second} is {other}.",
        "Put the {kind} {entity} in, {topic} {number} and {second} {other}.",
    ),
    held_out=(
        "Register {entity} as another {kind}; {topic} being {number}, {second} being {other}.",
        "We lack the {kind} {entity}: include it, {topic} {number}, {second} {other}.",
    ),
)
BOTH = Frames(
    wording="db-both",
    training=(
        "Set the {topic} of the {kind} {entity} to {number} and the {topic2} of the {kind2} {entity2} to {number2}.",
        "Change two things: the {kind} {entity} gets {topic} {number}, the {kind2} {entity2} gets {topic2} {number2}.",
        "The {topic} of the {kind} {entity} is {number} now, the {topic2} of the {kind2} {entity2} {number2}.",
        "Make {number} the {topic} of the {kind} {entity}, then {number2} the {topic2} of the {kind2} {entity2}.",
    ),
    held_out=(
        "Amend {topic} for the {kind} {entity}, {number}, as well as {topic2} for the {kind2} {entity2}, {number2}.",
        "Both are outdated: {kind} {entity}, {topic} {number}; {kind2} {entity2}, {topic2} {number2}. Mend that.",
    ),
)
COPY = Frames(
    wording="db-copy",
    training=(
        "Give the {kind} {entity} the same {topic} as {other}. What is it now?",
        "Set the {topic} of the {kind} {entity} to that of {other} and tell me the number.",
        "The {kind} {entity} has the {topic} of {other} from now on. Write it down and say how much it is.",
        "Make the {topic} of the {kind} {entity} equal to that of {other}. Which number is that?",
    ),
    held_out=(
        "Align the {topic} of the {kind} {entity} with {other}, and state the outcome.",
        "Whatever {topic} the {kind} {other} has, {entity} should have too; which figure results?",
    ),
)
