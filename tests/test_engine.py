from __future__ import annotations

import asyncio
import random
import threading
import time
from dataclasses import replace

import pytest
import tiny
import torch

from rolecraft.engine import LocalEngine, Settings, kv_cache
from rolecraft.errors import ContextFull, EngineError, SettingsError
from rolecraft.types import Completion, Message, Prompt, Sampling, ToolSpec

_TOOLS = tuple(ToolSpec(f"read_{word}", f"{word} of one company") for word in ("debt", "rank", "owner", "profit"))


@pytest.fixture(scope="module")
def loaded(nano_tokenizer):
    return tiny.loaded(nano_tokenizer)


@pytest.fixture
def engine(loaded):
    with LocalEngine(loaded, Settings(max_requests=4)) as engine:
        yield engine


def _ask(engine: LocalEngine, *prompts: Prompt) -> list[Completion]:
    """Ask all at once; return the first completion of each."""

    async def ask():
        return await asyncio.gather(*(engine.complete(prompt) for prompt in prompts))

    return [completions[0] for completions in asyncio.run(ask())]


def _singly(engine: LocalEngine, *prompts: Prompt) -> list[Completion]:
    answers = []
    for prompt in prompts:
        engine.forget()
        answers += _ask(engine, prompt)
    return answers


def _prompts(count: int = 10) -> list[Prompt]:
    dice = random.Random(0)
    texts = ["debt of " + "".join(dice.choices("abc DE,1", k=dice.randint(0, 120))) for _ in range(count)]
    return [tiny.prompt(text, max_tokens=dice.randint(1, 25)) for text in texts]


def _logprobs(model, completion: Completion) -> torch.Tensor:
    """What a full forward pass says of the tokens that were written."""
    turn = completion.turn
    ids = torch.tensor([turn.prompt_ids + turn.token_ids])
    with torch.inference_mode():
        logits = model(ids).logits[0, len(turn.prompt_ids) - 1 : -1]
    return logits.log_softmax(-1).gather(-1, torch.tensor(turn.token_ids)[:, None])[:, 0]


def _greedy(model, prompt_ids: tuple[int, ...], count: int) -> tuple[int, ...]:
    ids = list(prompt_ids)
    with torch.inference_mode():
        for _ in range(count):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    return tuple(ids[len(prompt_ids) :])


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_batched_replies_are_those_of_full_forward_passes(nano_tokenizer, architecture):
    loaded = tiny.loaded(nano_tokenizer, architecture)
    with LocalEngine(loaded, Settings(max_requests=4)) as engine:
        completions = _ask(engine, *_prompts())
    for completion in completions:
        turn = completion.turn
        assert turn.token_ids == _greedy(loaded.model, turn.prompt_ids, len(turn.token_ids))
        torch.testing.assert_close(
            torch.tensor(turn.logprobs), _logprobs(loaded.model, completion), atol=1e-4, rtol=1e-4
        )


def test_greedy_replies_do_not_depend_on_company_or_order(engine):
    prompts = _prompts()
    alone = [one.turn.token_ids for one in _singly(engine, *prompts)]
    order = random.Random(1).sample(range(len(prompts)), len(prompts))
    mixed = _ask(engine, *(prompts[i] for i in order))
    assert [alone[i] for i in order] == [one.turn.token_ids for one in mixed]


def test_sampled_replies_do_not_depend_on_company_or_order(engine):
    prompts = [replace(p, sampling=replace(p.sampling, temperature=0.9, seed=i)) for i, p in enumerate(_prompts())]
    alone = [one.turn.token_ids for one in _singly(engine, *prompts)]
    order = random.Random(2).sample(range(len(prompts)), len(prompts))
    mixed = _ask(engine, *(prompts[i] for i in order))
    assert [alone[i] for i in order] == [one.turn.token_ids for one in mixed]


def test_replies_that_outlive_their_neighbours_are_moved_unharmed(loaded):
    """Rows between two long replies fall idle, are closed up, and are taken again by prompts that come later."""
    prompts = [tiny.prompt(f"debt {i} of Plalples", max_tokens=length) for i, length in enumerate([70, 2, 2, 2, 2, 70])]
    late = [tiny.prompt(f"rank {i} of Plalples " * 6, max_tokens=30) for i in range(6)]

    async def staggered(engine):
        early = [asyncio.create_task(engine.complete(prompt)) for prompt in prompts]
        await asyncio.gather(*early[1:5])
        return [(await task)[0] for task in (*early, *(asyncio.create_task(engine.complete(p)) for p in late))]

    with LocalEngine(loaded, Settings(max_requests=6, prefill_tokens=40)) as engine:
        mixed = [one.turn.token_ids for one in asyncio.run(staggered(engine))]
        assert mixed == [one.turn.token_ids for one in _singly(engine, *prompts, *late)]


def test_logprobs_of_sampled_tokens_are_the_models_own(engine, loaded):
    for completion in _ask(engine, tiny.prompt("a", temperature=2.0, top_p=0.9), tiny.prompt("b", temperature=0.4)):
        expected = _logprobs(loaded.model, completion)
        torch.testing.assert_close(torch.tensor(completion.turn.logprobs), expected, atol=1e-4, rtol=1e-4)


def test_a_seed_repeats_and_another_differs(loaded):
    prompts = [tiny.prompt("debt", temperature=1.0, seed=seed, max_tokens=20) for seed in (1, 1, 2)]
    with LocalEngine(loaded, Settings(max_requests=4)) as engine:
        first, again, other = (one.turn.token_ids for one in _ask(engine, *prompts))
    with LocalEngine(loaded, Settings(max_requests=2, seed=1)) as engine:
        reseeded = _ask(engine, prompts[0])[0].turn.token_ids
    assert first == again
    assert len({first, other, reseeded}) == 3


def test_the_next_turn_computes_only_what_is_new(engine, loaded):
    opening = Prompt(
        (Message("user", "debt of Plalples and of others"),), _TOOLS, "reasoner", sampling=Sampling(max_tokens=9)
    )
    (first,) = _ask(engine, opening)
    following = replace(
        opening, messages=(*opening.messages, first.message, Message("tool", "3809")), speaker="executor"
    )
    (second,) = _ask(engine, following)
    # All but the last token written, which was never fed to the model.
    assert second.turn.usage.cached == len(first.turn.prompt_ids) + len(first.turn.token_ids) - 1
    assert second.turn.prompt_ids[: second.turn.usage.cached] == (first.turn.prompt_ids + first.turn.token_ids)[:-1]
    (fresh,) = _singly(engine, following)
    assert fresh.turn.usage.cached == 0
    assert fresh.turn.token_ids == second.turn.token_ids
    torch.testing.assert_close(
        torch.tensor(second.turn.logprobs), _logprobs(loaded.model, second), atol=1e-4, rtol=1e-4
    )


def test_many_episodes_keep_their_rows_over_turns(engine, loaded):
    episodes = [(Message("user", f"debt of company {name} " * 3),) for name in "ABCD"]
    for turn in range(4):
        completions = _ask(
            engine, *(Prompt(m, _TOOLS, sampling=Sampling(max_tokens=5 + i)) for i, m in enumerate(episodes))
        )
        for index, completion in enumerate(completions):
            expected = _logprobs(loaded.model, completion)
            torch.testing.assert_close(torch.tensor(completion.turn.logprobs), expected, atol=1e-4, rtol=1e-4)
            if turn:
                assert completion.turn.usage.prompt - completion.turn.usage.cached < 40
            episodes[index] = (*episodes[index], completion.message, Message("tool", f"{turn}"))


def test_prompts_that_begin_alike_compute_the_beginning_once(engine):
    prompts = [
        Prompt((Message("user", name),), _TOOLS, sampling=Sampling(max_tokens=3)) for name in ("Abc", "Def", "Ghi")
    ]
    first, *others = _ask(engine, *prompts)
    assert first.turn.usage.cached == 0
    for other in others:
        assert other.turn.usage.prompt - other.turn.usage.cached < 16


def test_prompts_of_other_scopes_share_nothing_and_do_not_wait_for_each_other(engine):
    """Neither the number of cached tokens nor the order of computing tells what another scope asked."""
    text = "debt of " + "x" * 100
    alone = [replace(tiny.prompt(text, max_tokens=4), cache_scopes=(name,)) for name in ("a", "b", "c")]
    told = [*_ask(engine, *alone), *_ask(engine, tiny.prompt(text, max_tokens=4))]
    assert [one.turn.usage.cached for one in told] == [0, 0, 0, 0]
    assert len({one.turn.token_ids for one in told}) == 1
    joined = replace(alone[0], cache_scopes=("d", "a"))
    assert _ask(engine, joined)[0].turn.usage.cached == len(told[0].turn.prompt_ids) - 1


def test_samples_share_one_prompt_and_differ(engine, loaded):
    prompt = tiny.prompt("debt of Plalples " * 5, temperature=1.0, n=6, max_tokens=15)
    completions = asyncio.run(engine.complete(prompt))
    assert sum(one.turn.usage.prompt - one.turn.usage.cached for one in completions) == len(
        completions[0].turn.prompt_ids
    )
    assert len({one.turn.token_ids for one in completions}) == 6
    again = asyncio.run(engine.complete(prompt))
    assert [one.turn.token_ids for one in again] == [one.turn.token_ids for one in completions]
    for completion in completions:
        expected = _logprobs(loaded.model, completion)
        torch.testing.assert_close(torch.tensor(completion.turn.logprobs), expected, atol=1e-4, rtol=1e-4)


def test_samples_that_write_the_same_are_computed_once(loaded):
    with LocalEngine(loaded, Settings(max_requests=4)) as engine:
        made = asyncio.run(engine.complete(tiny.prompt("debt of Plalples", n=4, max_tokens=9)))
        rows = [tokens for tokens in engine._runner.cache.tokens if tokens]
    assert len({one.turn.token_ids for one in made}) == len(rows) == 1
    assert made[0].turn.token_ids == _greedy(loaded.model, made[0].turn.prompt_ids, 9)


def test_samples_that_part_wait_for_rows_where_there_are_fewer(loaded):
    prompt = tiny.prompt("debt of Plalples " * 3, temperature=1.0, n=7, max_tokens=15)
    with LocalEngine(loaded, Settings(max_requests=7)) as engine:
        expected = asyncio.run(engine.complete(prompt))
    with LocalEngine(loaded, Settings(max_requests=2)) as engine:
        made = asyncio.run(engine.complete(prompt))
    assert [one.turn.token_ids for one in made] == [one.turn.token_ids for one in expected]
    for completion in made:
        found = torch.tensor(completion.turn.logprobs)
        torch.testing.assert_close(found, _logprobs(loaded.model, completion), atol=1e-4, rtol=1e-4)


def test_a_reply_goes_on_when_the_one_it_shares_its_row_with_is_given_up(loaded):
    prompt = tiny.prompt("debt of Plalples " * 3, max_tokens=120)

    async def ask(engine):
        first, second = (asyncio.ensure_future(engine.complete(prompt)) for _ in range(2))
        while not engine._scheduler._decoding:
            await asyncio.sleep(0.001)
        first.cancel()
        return await second

    with LocalEngine(loaded, Settings(max_requests=2)) as engine:
        (made,) = asyncio.run(ask(engine))
    written = made.turn.token_ids
    assert len(written) > 20  # it may end before the most that it may have
    assert written == _greedy(loaded.model, made.turn.prompt_ids, len(written))


def test_a_long_prompt_is_computed_in_parts(loaded):
    prompt = tiny.prompt("debt of Plalples " * 12)
    with LocalEngine(loaded, Settings(max_requests=2, prefill_tokens=7)) as engine:
        (pieces,) = _ask(engine, prompt)
    assert pieces.turn.token_ids == _greedy(loaded.model, pieces.turn.prompt_ids, 12)


def test_a_turn_tells_exactly_what_happened(engine, loaded):
    prompt = replace(tiny.prompt("debt", max_tokens=7), speaker="reasoner")
    (completion,) = _ask(engine, prompt)
    turn = completion.turn
    assert turn.prompt_ids == loaded.renderer.prompt(prompt.messages, (), "reasoner")
    assert completion.message == loaded.renderer.parse(turn.token_ids, "reasoner")
    assert (turn.message, turn.speaker, turn.stop) == (completion.message, "reasoner", "length")
    assert len(turn.token_ids) == len(turn.logprobs) == turn.usage.completion == 7
    assert turn.forced == (False,) * 7
    assert turn.role_ids == ()
    assert turn.usage.prompt == len(turn.prompt_ids)
    assert turn.usage.seconds > 0


def _ending(loaded, engine) -> tuple[Prompt, Completion]:
    """A sampled reply that the model ends by itself."""
    for seed in range(400):
        prompt = tiny.prompt("debt", temperature=1.5, seed=seed, max_tokens=60)
        (completion,) = _ask(engine, prompt)
        if completion.turn.stop == "end":
            return prompt, completion
    raise AssertionError("no reply ended")


def test_a_stop_token_ends_a_reply_and_is_kept(engine, loaded):
    _, completion = _ending(loaded, engine)
    assert completion.turn.token_ids[-1] in loaded.renderer.stop_ids
    assert loaded.renderer.stop_ids.isdisjoint(completion.turn.token_ids[:-1])
    assert completion.message.ids == completion.turn.token_ids


def test_a_stop_string_ends_a_reply(engine, loaded):
    prompt = tiny.prompt("debt", temperature=1.0, max_tokens=30)
    (whole,) = _ask(engine, prompt)
    text = loaded.renderer.text(whole.turn.token_ids)
    stop = text[10:13]
    (cut,) = _ask(engine, replace(prompt, sampling=replace(prompt.sampling, stop=("never written", stop))))
    assert cut.turn.stop == "end"
    assert cut.turn.token_ids == whole.turn.token_ids[: len(cut.turn.token_ids)]
    assert len(cut.turn.token_ids) < 30
    assert loaded.renderer.text(cut.turn.token_ids)[: text.find(stop)] == text[: text.find(stop)]
    assert stop not in cut.message.content


def test_the_context_bounds_prompt_and_reply(loaded):
    with LocalEngine(loaded, Settings(max_requests=2, max_context=40)) as engine:
        (completion,) = _ask(engine, tiny.prompt("debt", max_tokens=1000))
        assert len(completion.turn.prompt_ids) + len(completion.turn.token_ids) == 40
        assert completion.turn.stop == "length"
        assert completion.turn.token_ids == _greedy(
            loaded.model, completion.turn.prompt_ids, len(completion.turn.token_ids)
        )
        with pytest.raises(ContextFull, match=r"has \d+ tokens and the context holds 40"):
            _ask(engine, tiny.prompt("debt of Plalples " * 9))
        assert _ask(engine, tiny.prompt("debt", max_tokens=3))[0].turn.usage.completion == 3


def test_a_long_prompt_does_not_hold_up_its_callers_event_loop(nano_tokenizer):
    loaded = tiny.loaded(nano_tokenizer, max_position_embeddings=16384)
    text = "".join(f"<|im_end|>{number}" for number in range(8000))

    async def longest_pause(engine: LocalEngine) -> float:
        asking = asyncio.ensure_future(engine.complete(tiny.prompt(text)))
        longest = 0.0
        while not asking.done():
            began = time.perf_counter()
            await asyncio.sleep(0.001)
            longest = max(longest, time.perf_counter() - began)
        with pytest.raises(ContextFull, match="tokens"):
            asking.result()
        return longest

    with LocalEngine(loaded, Settings(max_requests=2, max_context=16384)) as engine:
        assert asyncio.run(longest_pause(engine)) < 0.2


def test_a_text_that_no_context_could_hold_is_refused_unread(loaded, nano_tokenizer):
    longest = max(map(len, nano_tokenizer.get_vocab()))
    with LocalEngine(loaded, Settings(max_requests=2, max_context=40)) as engine:
        with pytest.raises(ContextFull, match=rf"{40 * longest + 1} characters"):
            _ask(engine, tiny.prompt("a" * (40 * longest + 1)))
        with pytest.raises(ContextFull, match=r"has \d+ tokens"):
            _ask(engine, tiny.prompt("a" * (40 * longest)))


def test_the_models_limit_caps_the_context(loaded):
    with LocalEngine(loaded, Settings(max_context=100_000)) as engine:
        assert engine.context == 512


def test_a_prefix_begins_the_reply_and_the_message(engine, loaded):
    prompt = replace(tiny.prompt("debt"), prefix="I need the debt")
    (completion,) = _ask(engine, prompt)
    assert completion.message.content.startswith("I need the debt")
    assert loaded.renderer.text(completion.turn.prompt_ids).endswith("assistant\nI need the debt")
    assert completion.message.ids is not None
    assert completion.message.ids[-12:] == completion.turn.token_ids


def test_streamed_pieces_make_up_the_reply(engine, loaded):
    prompt = replace(tiny.prompt("debt", temperature=1.0, max_tokens=40), prefix="I need")

    async def listen():
        return [delta async for delta in engine.stream(prompt)]

    deltas = asyncio.run(listen())
    completion = deltas[-1].completion
    assert completion is not None
    assert [delta.completion for delta in deltas[:-1]] == [None] * (len(deltas) - 1)
    ids = [i for i in completion.turn.token_ids if i not in loaded.renderer.stop_ids]
    assert "".join(delta.text for delta in deltas) == "I need" + loaded.renderer.text(ids)
    assert len(deltas) > 5
    assert completion.turn.token_ids == _ask(engine, prompt)[0].turn.token_ids


def test_a_cancelled_request_frees_its_slot(loaded):
    async def cancel_one():
        task = asyncio.create_task(engine.complete(tiny.prompt("debt", max_tokens=400)))
        while counted.calls < 5:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await engine.complete(tiny.prompt("rank"))

    with LocalEngine(loaded, Settings(max_requests=1)) as engine:
        counted = tiny.Counted(engine)
        (completion,) = asyncio.run(cancel_one())
    assert counted.calls < 200  # and 12 of them are the second one's
    assert completion.turn.token_ids == _greedy(loaded.model, completion.turn.prompt_ids, 12)


def test_a_listener_who_leaves_frees_the_slot(loaded):
    async def leave():
        stream = engine.stream(tiny.prompt("debt", max_tokens=400))
        await anext(stream)
        await stream.aclose()
        return await engine.complete(tiny.prompt("rank"))

    with LocalEngine(loaded, Settings(max_requests=1)) as engine:
        counted = tiny.Counted(engine)
        assert len(asyncio.run(leave())) == 1
    assert counted.calls < 200


def test_a_slot_is_used_again_while_its_neighbour_still_writes(loaded):
    ended = []

    async def ask(name, most):
        await engine.complete(tiny.prompt(name, max_tokens=most))
        ended.append(name)

    async def three():
        await asyncio.gather(ask("long", 300), ask("short", 3), ask("queued", 3))

    with LocalEngine(loaded, Settings(max_requests=2)) as engine:
        counted = tiny.Counted(engine)
        asyncio.run(three())
    assert ended == ["short", "queued", "long"]
    assert counted.calls < 330


def test_a_loop_that_closes_under_a_request_harms_nobody(engine):
    loop = asyncio.new_event_loop()
    abandoned = loop.create_task(engine.complete(tiny.prompt("debt", max_tokens=30)))
    loop.run_until_complete(asyncio.sleep(0.01))
    abandoned.cancel()
    loop.run_until_complete(asyncio.gather(abandoned, return_exceptions=True))
    loop.close()
    assert _ask(engine, tiny.prompt("rank"))[0].turn.usage.completion == 12


def test_several_event_loops_share_an_engine(engine):
    prompts = _prompts(6)
    alone = [one.turn.token_ids for one in _singly(engine, *prompts)]
    answers: dict[int, tuple[int, ...]] = {}

    def ask(index: int) -> None:
        answers[index] = _ask(engine, prompts[index])[0].turn.token_ids

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(len(prompts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answers[index] for index in range(len(prompts))] == alone


def test_more_requests_than_rows_are_all_answered(loaded):
    with LocalEngine(loaded, Settings(max_requests=2)) as engine:
        prompts = [tiny.prompt(f"debt {i}", max_tokens=1 + i % 7) for i in range(40)]
        assert [one.turn.usage.completion for one in _ask(engine, *prompts)] == [1 + i % 7 for i in range(40)]


def test_changed_weights_are_seen_after_forgetting(nano_tokenizer):
    loaded = tiny.loaded(nano_tokenizer)
    with LocalEngine(loaded, Settings(max_requests=2)) as engine:
        before = _ask(engine, tiny.prompt("debt"))[0].turn
        with torch.no_grad():
            loaded.model.model.layers[0].self_attn.k_proj.weight.neg_()
        engine.forget()
        after = _ask(engine, tiny.prompt("debt"))[0].turn
    assert after.usage.cached == 0
    assert after.token_ids == _greedy(loaded.model, after.prompt_ids, 12) != before.token_ids


def test_forgetting_under_way_is_refused(engine):
    async def forget_meanwhile():
        task = asyncio.create_task(engine.complete(tiny.prompt("debt", max_tokens=300)))
        await asyncio.sleep(0.02)
        with pytest.raises(EngineError, match="wait for them"):
            engine.forget()
        task.cancel()

    asyncio.run(forget_meanwhile())


def test_a_failing_model_fails_its_callers_and_not_the_engine(nano_tokenizer):
    loaded = tiny.loaded(nano_tokenizer)
    with LocalEngine(loaded, Settings(max_requests=2, fused=False)) as engine:
        embedding = loaded.model.get_input_embeddings()
        weight, embedding.weight.data = embedding.weight.data, torch.zeros(3, 32)
        with pytest.raises(EngineError, match="the model call failed with IndexError"):
            _ask(engine, tiny.prompt("debt"))
        embedding.weight.data = weight
        (completion,) = _ask(engine, tiny.prompt("debt"))
    assert completion.turn.token_ids == _greedy(loaded.model, completion.turn.prompt_ids, 12)


def test_what_memory_a_failed_call_leaves_is_not_used(nano_tokenizer, monkeypatch):
    """The buffers of some layers have grown then, and those of others have not."""
    loaded = tiny.loaded(nano_tokenizer)
    long = tiny.prompt("debt of " + "Plalples " * 100)
    with LocalEngine(loaded, Settings(max_requests=2)) as engine:
        _ask(engine, tiny.prompt("debt"))
        grown, calls = kv_cache._enlarged, []

        def fails_at_the_second(buffer, rows, columns):
            calls.append(columns)
            if len(calls) == 2:
                raise RuntimeError("out of memory")
            return grown(buffer, rows, columns)

        monkeypatch.setattr(kv_cache, "_enlarged", fails_at_the_second)
        with pytest.raises(EngineError, match="RuntimeError: out of memory"):
            _ask(engine, long)
        (completion,) = _ask(engine, long)
    assert completion.turn.token_ids == _greedy(loaded.model, completion.turn.prompt_ids, 12)


def test_weights_that_cannot_be_read_again_close_the_engine(loaded, monkeypatch):
    def fail():
        raise MemoryError("no room")

    with LocalEngine(loaded, Settings(max_requests=2)) as engine:
        monkeypatch.setattr(engine._runner, "refresh", fail)
        with pytest.raises(EngineError, match=r"could not be read again \(MemoryError: no room\); open a new engine"):
            engine.forget()
        with pytest.raises(EngineError, match="closed"):
            _ask(engine, tiny.prompt("debt"))


def test_a_closed_engine_says_so(loaded):
    engine = LocalEngine(loaded, Settings(max_requests=2))

    async def close_meanwhile():
        task = asyncio.create_task(engine.complete(tiny.prompt("debt", max_tokens=400)))
        await asyncio.sleep(0.02)
        await asyncio.to_thread(engine.close)
        with pytest.raises(EngineError, match="was closed"):
            await task

    asyncio.run(close_meanwhile())
    engine.close()
    with pytest.raises(EngineError, match="is closed"):
        _ask(engine, tiny.prompt("debt"))


@pytest.mark.parametrize("sampling", [{"n": 0}, {"max_tokens": 0}, {"stop": ("",)}])
def test_impossible_sampling_is_refused(engine, sampling):
    with pytest.raises(EngineError, match="at least 1"):
        _ask(engine, tiny.prompt("debt", **sampling))


def test_a_stream_of_several_is_refused(engine):
    async def listen():
        return [delta async for delta in engine.stream(tiny.prompt("debt", n=2))]

    with pytest.raises(EngineError, match="n=2"):
        asyncio.run(listen())


@pytest.mark.parametrize("name", ["max_requests", "max_context", "prefill_tokens"])
def test_impossible_settings_are_refused(loaded, name):
    with pytest.raises(SettingsError, match=f"engine.{name} is 0"):
        LocalEngine(loaded, Settings(**{name: 0}))
