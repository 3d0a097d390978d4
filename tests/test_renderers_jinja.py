"""A chat template is somebody else's program: whatever it does, it is done with in time."""

from __future__ import annotations

import copy
import time

import pytest

from rolecraft.renderers import recognize
from rolecraft.renderers._jinja import LONGEST_TEMPLATE, TemplateFailed, Templates

ASKED = [{"role": "user", "content": "hé\ud800 {{ x }}"}]
ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


@pytest.fixture(scope="module")
def templates() -> Templates:
    return Templates(seconds=1.0)


def test_a_template_renders_as_transformers_does_on_one_fixed_day(templates: Templates) -> None:
    text = templates.render(
        "{{ bos_token }}{{ messages[0].content }} {{ strftime_now('%d %b %Y') }}", ASKED, bos_token="<s>"
    )
    assert text == "<s>hé\ud800 {{ x }} 26 Jul 2024"


@pytest.mark.parametrize(
    ("template", "why"),
    [
        (ENDLESS, "not done after 1 s"),
        ("{{ 'x' * 10**10 }}", "more memory"),
        ("{{ 'x' * 10**8 }}", "more than 16000000 characters|not done"),
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{% if", "TemplateSyntaxError"),
        ("x" * (LONGEST_TEMPLATE + 1), f"at most {LONGEST_TEMPLATE}"),
    ],
    ids=["endless", "memory", "output", "refuses", "malformed", "long"],
)
def test_what_a_template_may_take_is_bounded_and_the_next_one_renders(templates: Templates, template: str, why: str):
    begun = time.monotonic()
    with pytest.raises(TemplateFailed, match=why):
        templates.render(template, ASKED)
    assert time.monotonic() - begun < 30
    assert templates.render("yes", ASKED) == "yes"


def test_the_process_is_there_only_while_it_is_needed() -> None:
    own = Templates()
    own.prepare()
    running = own._running[0]
    assert own.render("yes", ASKED) == "yes"
    assert own._running == [running]
    own.release()
    assert running.poll() is not None
    assert own.render("yes", ASKED) == "yes"
    own.release()


def test_a_conversation_that_json_cannot_hold_is_refused(templates: Templates) -> None:
    with pytest.raises(TemplateFailed, match="JSON"):
        templates.render("yes", [{"role": "user", "content": object()}])


def test_an_endless_template_does_not_keep_its_tokenizer_from_being_recognized(hermes_tokenizer) -> None:
    tokenizer = copy.deepcopy(hermes_tokenizer)
    tokenizer.init_kwargs.pop("rolecraft_renderer")
    tokenizer.chat_template = ENDLESS
    begun = time.monotonic()
    assert "own template differs: it fails" in recognize(tokenizer).why
    assert time.monotonic() - begun < 30
