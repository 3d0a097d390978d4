from __future__ import annotations

import json
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import any_schema
import jsonschema
import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, trainers
from transformers import PreTrainedTokenizerFast

from rolecraft import renderers
from rolecraft.engine.matcher import Grammars, Settings
from rolecraft.errors import DataError, EngineError
from rolecraft.grammar import Wanted
from rolecraft.grammar.shapes import Limits
from rolecraft.judges import calls
from rolecraft.types import Message, Task, ToolCall, ToolSpec, Trajectory

FORMATS = ("nano", "hermes", "llama3", "phi3")
DEBT = ToolSpec("read_debt", "debt", {"type": "object", "properties": {"key": {"type": "string"}}, "required": ["key"]})
NOOP = ToolSpec("noop", "nothing")
ROLES = ("executor", "summarizer")
SMALL = Limits(text=8, items=3, digits=4, places=2, depth=1)


def grammars(tokenizer, limits=None, **settings):
    return Grammars(renderers.find(tokenizer), tokenizer, len(tokenizer), Settings(limits or Limits(), **settings))


@pytest.fixture(scope="module")
def nano(nano_tokenizer):
    return grammars(nano_tokenizer)


@pytest.fixture(scope="module")
def spaced_tokenizer():
    """SentencePiece's kind: a space is put before any text, and bytes without a token have one each."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    special = ["<unk>", *(f"<0x{i:02X}>" for i in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(['I need the debt. {"name": "read_debt", "arguments": {"key": "a"}}'] * 2, trainer)
    data = json.loads(tokenizer.to_str())
    data["added_tokens"] = data["added_tokens"][:1]
    tokenizer = Tokenizer.from_str(json.dumps(data))
    for marker in ("<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"):
        tokenizer.add_special_tokens([AddedToken(marker, special=True, normalized=False)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>")


def test_a_schema_of_many_optional_keys_holds_a_reply_at_its_first_request(nano, nano_tokenizer):
    properties = {f"key{place}": {"type": "string"} for place in range(1500)}
    matcher = nano.start(Wanted(schema={"type": "object", "properties": properties}))
    for token in nano_tokenizer.encode('{"key7":"x","key1499":"y"}', add_special_tokens=False):
        assert matcher.allowed()[token]
        matcher.accept(token)


def holds(renderer, ids, tool):
    """Assert that a reply is one call, which the schema and the project's judge accept."""
    message = renderer.parse(ids, "executor")
    assert (message.unparsed, message.content, len(message.tool_calls)) == (None, "", 1), renderer.text(ids)
    asked = (Message("user", "?"),)
    verdict = calls.judge(Trajectory("t", Task("t", asked, (tool,)), (*asked, message)))
    assert verdict.score == 1, (verdict.reason, renderer.text(ids), tool.parameters)
    jsonschema.Draft202012Validator(tool.parameters).validate(message.tool_calls[0].arguments)


def draw_calls(tokenizer_of, schemas, each):
    """Draw `each` calls under each of `schemas` random schemas; return how many there were."""
    seed = drawn = done = 0
    while done < schemas:
        seed += 1
        dice = random.Random(seed)
        tokenizer = tokenizer_of(FORMATS[seed % 4])
        tool = ToolSpec("f", "", any_schema.parameters(dice))
        try:
            start = grammars(tokenizer, SMALL).start(Wanted((tool,), "required", parallel=False))
        except DataError:  # some ask for what cannot be, or for what is not supported
            continue
        for _ in range(each):
            holds(renderers.find(tokenizer), any_schema.draw(start.copy(), dice), tool)
        done, drawn = done + 1, drawn + each
    assert seed < 2 * schemas, "most schemas must be supported"
    return drawn


def test_500_random_calls_under_50_random_schemas_parse_and_validate(request):
    assert draw_calls(lambda name: request.getfixturevalue(f"{name}_tokenizer"), 50, 10) == 500


@pytest.mark.slow
def test_10000_random_calls_under_50_random_schemas_parse_and_validate(request):
    assert draw_calls(lambda name: request.getfixturevalue(f"{name}_tokenizer"), 50, 200) == 10_000


@pytest.mark.parametrize("name", [*FORMATS, "spaced"])
def test_forced_tokens_are_those_the_renderer_writes(request, name):
    tokenizer = request.getfixturevalue(f"{name}_tokenizer")
    renderer = renderers.find(tokenizer)
    matcher = grammars(tokenizer).start(Wanted((NOOP, DEBT), "noop", parallel=False))
    assert tuple(matcher.forced()) == renderer.reply(Message("assistant", tool_calls=(ToolCall("noop", {}),)))


@pytest.mark.parametrize("name", [*FORMATS, "spaced"])
def test_what_the_renderer_writes_is_allowed_token_by_token(request, name):
    tokenizer = request.getfixturevalue(f"{name}_tokenizer")
    renderer, dice = renderers.find(tokenizer), random.Random(0)
    kept = grammars(tokenizer)
    for _ in range(20):
        words = ["".join(dice.choices('abcPl ,."}{\\\né😀0', k=dice.randint(0, 12))) for _ in range(3)]
        made = tuple(ToolCall("read_debt", {"key": word}) for word in words)
        for choice, content in (("required", ""), ("auto", "I need the debt."), ("auto", "")):
            reply = renderer.reply(Message("assistant", content, tool_calls=made))
            assert any_schema.follows(kept.start(Wanted((DEBT, NOOP), choice)), reply)
        text = renderer.reply(Message("assistant", "I need a debt. Next: executor."))
        assert any_schema.follows(kept.start(Wanted((DEBT,), next_roles=ROLES)), text)


def test_a_spaced_tokenizers_replies_parse(spaced_tokenizer):
    renderer = renderers.find(spaced_tokenizer)
    start = grammars(spaced_tokenizer, SMALL).start(Wanted((DEBT,), "required", parallel=False))
    for seed in range(20):
        holds(renderer, any_schema.draw(start.copy(), random.Random(seed)), DEBT)


def test_forced_tokens_are_the_only_ones_allowed(nano):
    matcher = nano.start(Wanted((DEBT,), "required", parallel=False))
    forced = matcher.forced()
    assert len(forced) > 3
    for token in forced:
        assert matcher.allowed().nonzero().flatten().tolist() == [token]
        matcher.accept(token)


def test_a_mask_is_as_wide_as_the_models_vocabulary(nano_tokenizer):
    renderer = renderers.find(nano_tokenizer)
    wide = Grammars(renderer, nano_tokenizer, len(nano_tokenizer) + 40, Settings()).start(Wanted())
    narrow = Grammars(renderer, nano_tokenizer, 100, Settings()).start(Wanted())
    assert wide.allowed().dtype == torch.bool
    assert wide.allowed().shape == (len(nano_tokenizer) + 40,)
    assert not wide.allowed()[len(nano_tokenizer) :].any()
    assert torch.equal(narrow.allowed(), wide.allowed()[:100])


def test_only_the_end_token_ends_a_reply(nano, nano_tokenizer):
    renderer = renderers.find(nano_tokenizer)
    mask = nano.start(Wanted()).allowed()
    assert [i for i in renderer.control_ids if mask[i]] == [renderer.end_id]


def test_a_token_that_does_not_fit_is_refused_and_changes_nothing(nano):
    matcher = nano.start(Wanted((DEBT,), "required"))
    matcher.accept(matcher.forced()[0])
    before = matcher.allowed()
    wrong = int((~before).nonzero()[0])
    with pytest.raises(EngineError, match=f"token {wrong} does not fit"):
        matcher.accept(wrong)
    assert torch.equal(matcher.allowed(), before)


def test_a_copy_goes_its_own_way(nano):
    matcher = nano.start(Wanted((DEBT, NOOP), "required"))
    before = matcher.allowed()
    other = matcher.copy()
    any_schema.draw(other, random.Random(0))
    assert other.finished
    assert not matcher.finished
    assert torch.equal(matcher.allowed(), before)


@pytest.mark.parametrize(
    "wanted",
    [
        Wanted((DEBT, NOOP), "required"),
        Wanted((ToolSpec("f", "", {"type": "object", "additionalProperties": True}),), "required"),
        Wanted((DEBT,), next_roles=ROLES),
    ],
    ids=["calls", "open keys", "thought"],
)
def test_tokens_can_be_taken_back(nano, wanted):
    matcher = nano.start(wanted)
    masks, count = [], 0
    ids = any_schema.draw(nano.start(wanted), random.Random(1), most=400)
    for token in ids:
        masks.append(matcher.allowed(400 - count))
        matcher.accept(token)
        count += 1
    assert matcher.finished
    for back in (1, 2, 3, len(ids) - 6):
        matcher.rollback(back)
        count -= back
        assert not matcher.finished
        assert torch.equal(matcher.allowed(400 - count), masks[count])
    with pytest.raises(EngineError, match="cannot take back 1 tokens of 0"):
        matcher.rollback(1)


def test_a_reply_can_begin_with_given_tokens(nano, nano_tokenizer):
    begun = nano_tokenizer.encode('{"name":"no', add_special_tokens=False)
    matcher = nano.start(Wanted((DEBT, NOOP), "required", parallel=False), begun)
    assert nano_tokenizer.decode(matcher.forced()) == 'op","args":{}}<|im_end|>'
    with pytest.raises(DataError, match="cannot begin with 'I need' if choice is 'required'"):
        nano.start(Wanted((DEBT,), "required"), nano_tokenizer.encode("I need", add_special_tokens=False))


@pytest.mark.parametrize("left", [12, 20, 60])
def test_a_thought_names_the_next_role_before_its_tokens_run_out(nano, nano_tokenizer, left):
    for seed in range(20):
        ids = any_schema.draw(nano.start(Wanted(next_roles=ROLES)), random.Random(seed), most=left)
        text = nano_tokenizer.decode(ids)
        assert text.endswith(("Next: executor.<|im_end|>", "Next: summarizer.<|im_end|>"))


@pytest.mark.parametrize("letters", ["a", 'a"', 'ab"é'])
def test_keys_that_no_schema_lists_are_all_different(nano, nano_tokenizer, letters):
    """Drawn from so few letters, the same keys would come again and again, short ones and the longest."""
    schema = {"type": "object", "properties": {"a": {}}, "additionalProperties": {"type": "integer"}}
    inner = {"type": "object", "properties": {"x": schema}, "additionalProperties": schema}
    tool = ToolSpec("f", "", inner)
    wished = {i for letter in letters for i in nano_tokenizer.encode(letter, add_special_tokens=False)}
    for seed in range(4):
        dice = random.Random(seed)
        matcher, ids = nano.start(Wanted((tool,), "required", parallel=False)), []
        while not matcher.finished:
            allowed = matcher.allowed().nonzero().flatten().tolist()
            ids.append(dice.choice([i for i in allowed if i in wished] or allowed))
            matcher.accept(ids[-1])
        holds(renderers.find(nano_tokenizer), ids, tool)


def test_a_grammar_is_compiled_once_and_few_are_kept(nano_tokenizer):
    kept = grammars(nano_tokenizer)
    tools = [ToolSpec(f"f{i}", "", {"type": "object", "properties": {f"k{i}": {}}}) for i in range(70)]
    compiled = []
    compile_one = kept._compile
    kept._compile = lambda wanted: compiled.append(wanted) or compile_one(wanted)
    for tool in (*tools, *tools[-64:]):
        kept.start(Wanted((tool,), "required"))
    assert len(compiled) == 70
    kept.start(Wanted((ToolSpec("f69", "another description", tools[-1].parameters),), "required"))
    kept.start(Wanted(tools[:1], "required"))
    assert len(compiled) == 71


def test_any_number_of_threads_may_ask(nano_tokenizer):
    kept, replies = grammars(nano_tokenizer, SMALL), [[] for _ in range(4)]

    def ask(place):
        for seed in range(6):
            tools = (ToolSpec(f"f{seed}", "", DEBT.parameters),)
            replies[place].append(any_schema.draw(kept.start(Wanted(tools, "required")), random.Random(seed)))

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(reply == replies[0] for reply in replies)


def test_what_is_ignored_is_told_once(nano_tokenizer):
    tool = ToolSpec("f", "", {"type": "object", "properties": {"x": {"type": "array", "uniqueItems": True}}})
    kept = grammars(nano_tokenizer, on_unsupported="ignore")
    with pytest.warns(UserWarning, match=r"not held to tools\[0\]\.parameters\.properties\.x\.uniqueItems"):
        kept.start(Wanted((tool,), "required"))
    kept.start(Wanted((tool,), "required"))


def test_a_schema_that_is_no_json_is_refused(nano):
    with pytest.raises(DataError, match="JSON"):
        nano.start(Wanted((ToolSpec("f", "", {"type": "object", "default": {1, 2}}),), "required"))


def test_a_slow_tokenizer_is_refused(nano_tokenizer):
    class Slow:
        pass

    with pytest.raises(EngineError, match="Slow has no fast implementation"):
        Grammars(renderers.find(nano_tokenizer), Slow(), 100, Settings()).start(Wanted())


def test_a_grammar_that_takes_long_keeps_nobody_else_waiting(nano_tokenizer, monkeypatch):
    """And whoever asks for it too gets the same one."""
    fresh, go, compiled = grammars(nano_tokenizer), threading.Event(), []
    compile_one = fresh._compile

    def slowly(wanted):
        compiled.append(wanted)
        assert wanted.choice != "required" or go.wait(20)
        return compile_one(wanted)

    monkeypatch.setattr(fresh, "_compile", slowly)
    with ThreadPoolExecutor(3) as threads:
        slow = [threads.submit(fresh.start, Wanted((DEBT,), "required")) for _ in range(2)]
        assert threads.submit(fresh.start, Wanted((DEBT,), "none")).result(20)
        assert not any(one.done() for one in slow)
        go.set()
        assert all(one.result(20) for one in slow)
    assert len(compiled) == 2


def test_what_is_refused_is_not_compiled_again(nano, monkeypatch):
    compiled = []
    compile_one = nano._compile
    monkeypatch.setattr(nano, "_compile", lambda wanted: (compiled.append(wanted), compile_one(wanted))[1])
    wanted = Wanted((ToolSpec("f", "", {"type": "object", "not": {}}),), "required")
    for _ in range(2):
        with pytest.raises(DataError, match=r"parameters\.not"):
            nano.start(wanted)
    assert len(compiled) == 1
