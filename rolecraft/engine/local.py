"""The local engine: answers prompts with a transformers model, many at once, keeping keys and values from turn to turn.

Not covered: models whose caches forget.
"""

from __future__ import annotations

import asyncio
import copy
import random
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial

from rolecraft.engine.context import own_context
from rolecraft.engine.matcher import Grammars, Matcher
from rolecraft.engine.memory import return_freed
from rolecraft.engine.model_runner import ModelRunner, cache_keys
from rolecraft.engine.opening import otherwise
from rolecraft.engine.packing import describe
from rolecraft.engine.prompts import check_length, check_scored, complete, constraint, encode, reply_prefix
from rolecraft.engine.reply import Reader
from rolecraft.engine.request import Output, Request, Scored
from rolecraft.engine.scheduler import Scheduler
from rolecraft.engine.settings import Constrain, Settings, check, check_memory
from rolecraft.engine.weights import Choice, choose
from rolecraft.errors import EngineError
from rolecraft.gate import NOBODY
from rolecraft.grammar import Wanted
from rolecraft.model import Loaded
from rolecraft.types import Completion, Delta, Prompt, Sampling

_GRAMMAR_THREADS = 64
"""So many replies may wait for their grammars at once."""


class LocalEngine:
    """Implements `types.Engine` on one model, with a thread of its own; callers may sit on any number of event loops.

    The keys and values of a finished reply stay until their row is needed: the next prompt that begins alike computes
    only what is new. A greedy reply does not depend on what else is running; a sampled one depends on `Sampling.seed`
    as well.
    """

    def __init__(self, loaded: Loaded, settings: Settings = Settings(), choice: Choice | None = None) -> None:
        """Try the model's cache and start; raises SettingsError, or EngineError for a model that cannot be served.

        With weights in another form than float32 the model gives its matrices away: it can do nothing else afterwards.
        `choice`: what `weights.choose` said of them already.
        """
        check(settings)
        self.loaded, self.settings = loaded, settings
        config, rows = loaded.model.config, settings.max_requests
        choice = choice or choose(settings.weights, config, rows, "float32", str(loaded.device))
        self._runner = ModelRunner(
            loaded,
            rows,
            settings.max_context or own_context(loaded, rows, settings.memory_mb, packed=choice.kind is not None),
            use_fused=settings.fused,
            prefill_dtype=settings.prefill_dtype,
            pack_as=choice.kind,
            pack_prompts=choice.prompts,
        )
        self.weights = describe(choice, self._runner.packer)
        self.copies = self._runner.copies
        self.context = self._runner.context
        self._grammars = Grammars(loaded.renderer, loaded.tokenizer, self._runner.vocabulary, settings.grammar)
        check_memory(settings, self._runner.cache.max_bytes, self.context)
        self._longest_token = max(map(len, loaded.tokenizer.get_vocab()))
        # One thread, so that prompts reach the scheduler in the order in which they were asked.
        self._tokenizer_thread = ThreadPoolExecutor(1, "rolecraft-tokenizer")
        self._grammar_threads = ThreadPoolExecutor(_GRAMMAR_THREADS, "rolecraft-grammar")
        self._scheduler = Scheduler(self._runner, settings)
        return_freed()

    async def complete(self, prompt: Prompt) -> tuple[Completion, ...]:
        """Return `prompt.sampling.n` completions; they share the computation of their prompt.

        Raises ContextFull for a prompt that leaves no room for a reply, EngineError for one that cannot be served, and
        DataError for tools or a prefix that its choice cannot be made a grammar with.
        """
        ids, roles = await self._encode(prompt)
        wanted = self._wanted(prompt)
        matcher = await self._start(prompt, ids, wanted)
        replies = [self._reply(prompt, ids, roles, index, wanted, matcher) for index in range(prompt.sampling.n)]
        outputs = await asyncio.gather(*replies)
        return tuple(complete(self.loaded, prompt, ids, roles[-1], output) for output in outputs)

    async def stream(self, prompt: Prompt) -> AsyncIterator[Delta]:
        """Yield a reply's text as it is generated, `prompt.prefix` first; the last delta holds the completion."""
        if prompt.sampling.n != 1:
            raise EngineError(f"a stream is one reply, not n={prompt.sampling.n}; ask complete() for several")
        ids, roles = await self._encode(prompt)
        wanted = self._wanted(prompt)
        matcher = await self._start(prompt, ids, wanted)
        loop, tokens = asyncio.get_running_loop(), asyncio.Queue[int | None]()

        def tell(token: int | None) -> None:
            with suppress(RuntimeError):  # the loop that asked is closed: nobody listens
                loop.call_soon_threadsafe(tokens.put_nowait, token)

        reply = asyncio.ensure_future(self._reply(prompt, ids, roles, 0, wanted, matcher, tell))
        reply.add_done_callback(lambda _: tell(None))
        reader = Reader(self.loaded.renderer, prompt.sampling.stop)
        try:
            if prompt.prefix:
                yield Delta(prompt.prefix)
            while (token := await tokens.get()) is not None:
                if text := reader.read(token):
                    yield Delta(text)
            completion = complete(self.loaded, prompt, ids, roles[-1], reply.result())
            yield Delta(reader.rest(), completion)
        finally:
            reply.cancel()

    async def score(self, ids: Sequence[int], start: int = 1, roles: Sequence[int] = (), top: int = 0) -> Scored:
        """Return how likely the model finds each of `ids[start:]` after those before it, all else as in `complete`.

        What is cached of the first `start` tokens is not computed again. `roles` are the tokens' role ids, for an
        adapter with a gate; `top` asks for the likeliest tokens at each place, all of them with the vocabulary's size.
        Raises EngineError for ids that cannot be scored, ContextFull for too many.
        """
        check_scored(self.loaded, ids, start, roles, self.context)
        known = tuple(roles) or (NOBODY,) * len(ids)
        request = Request(
            prompt=cache_keys(ids[:start], known[:start]),
            role=NOBODY,
            sampling=Sampling(top_logprobs=top),
            max_tokens=len(ids) - start,
            random=random.Random(0),
            scopes=("",),
            renderer=self.loaded.renderer,
        )
        request.give(ids[start:], known[start:])
        self._scheduler.submit(request)
        output = await self._finished(request)
        return Scored(output.logprobs, output.likeliest)

    async def length(self, prompt: Prompt) -> int:
        """Return how many tokens a prompt has, whether or not there is room for a reply."""
        make = partial(encode, self.loaded, prompt, sys.maxsize, None)
        ids, _ = await asyncio.get_running_loop().run_in_executor(self._tokenizer_thread, make)
        return len(ids)

    def holding(self, constrain: Constrain) -> LocalEngine:
        """Return the same engine, which holds other replies; one model, one cache, and closing either closes both."""
        other = copy.copy(self)
        other.settings = replace(self.settings, constrain=constrain)
        return other

    def forget(self) -> None:
        """Drop all cached keys and values; for when the model's weights have changed.

        Raises EngineError while replies are being generated.
        """
        self._scheduler.refresh()

    def close(self) -> None:
        """Stop the engine's thread; running requests fail with EngineError. Safe to call twice."""
        self._scheduler.close()

    def __enter__(self) -> LocalEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def _encode(self, prompt: Prompt) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the prompt's tokens and role ids, made beside the caller's event loop: a long text takes long."""
        check_length(prompt, self.context, self._longest_token)
        make = partial(encode, self.loaded, prompt, self.context, self._runner.limit)
        return await asyncio.get_running_loop().run_in_executor(self._tokenizer_thread, make)

    async def _start(self, prompt: Prompt, ids: tuple[int, ...], wanted: Wanted | None) -> Matcher | None:
        """Return what holds the reply to `prompt`, whose tokens are `ids`, to what is wanted; None if it is free."""
        if wanted is None:
            return None
        # A grammar may take long to compile, and those who wait for it would take all the threads that asyncio has.
        loop, start = asyncio.get_running_loop(), self._grammars.start
        prefix = reply_prefix(self.loaded, prompt, ids)
        return await loop.run_in_executor(self._grammar_threads, lambda: start(wanted, prefix))

    def _wanted(self, prompt: Prompt) -> Wanted | None:
        return constraint(prompt, self.settings.constrain, lenient=self.loaded.renderer.format.lenient)

    async def _reply(
        self,
        prompt: Prompt,
        ids: tuple[int, ...],
        roles: Sequence[int],
        index: int,
        wanted: Wanted | None,
        matcher: Matcher | None,
        on_token: Callable[[int], None] | None = None,
    ) -> Output:
        """Return one reply; where its model would call a tool that is not offered, what it writes instead."""
        seconds, doubted, cached = 0.0, False, list[int]()
        while True:
            output = await self._finished(self._submit(prompt, ids, roles, index, matcher, on_token))
            seconds += output.seconds
            cached.append(output.cached)  # the first computed what the others found
            if wanted is None or not output.doubted:
                return replace(output, seconds=seconds, doubted=doubted, cached=cached[0])
            wanted = otherwise(wanted)
            doubted = wanted.choice == "none"
            matcher = await self._start(prompt, ids, wanted)

    async def _finished(self, request: Request) -> Output:
        """Return a request's output; who no longer waits for it ends it."""
        try:
            return await asyncio.wrap_future(request.future)
        finally:
            request.future.cancel()

    def _submit(
        self,
        prompt: Prompt,
        ids: Sequence[int],
        roles: Sequence[int],
        index: int,
        matcher: Matcher | None,
        on_token: Callable[[int], None] | None = None,
    ) -> Request:
        sampling = prompt.sampling
        request = Request(
            prompt=cache_keys(ids, roles),
            role=roles[-1],
            sampling=sampling,
            max_tokens=min(sampling.max_tokens, self.context - len(ids)),
            random=random.Random(f"{self.settings.seed}/{sampling.seed}/{index}"),
            scopes=prompt.cache_scopes,
            renderer=self.loaded.renderer,
            on_token=on_token,
            matcher=None if matcher is None else matcher.copy(),
        )
        self._scheduler.submit(request)
        return request
