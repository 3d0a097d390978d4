"""The local engine: answers prompts with a transformers model, many at once, keeping keys and values from turn to turn.

Not covered: models whose caches forget.
"""

from __future__ import annotations

import asyncio
import queue
import random
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import torch

from rolecraft.engine.decoder import Decoder, keyed
from rolecraft.engine.matcher import Grammars, Matcher
from rolecraft.engine.reply import Reader, says
from rolecraft.engine.settings import Settings, check, check_memory
from rolecraft.engine.slots import longest
from rolecraft.engine.writing import Choice, Writing, begun, complete, draw_each, encode, wanted
from rolecraft.errors import EngineError
from rolecraft.model import Dtype, Loaded, load, merges
from rolecraft.types import Completion, Delta, Prompt, StopReason

__all__ = ["LocalEngine", "Settings", "open_local"]

_WORTH_WAITING = 16
"""So many more of its tokens must another prompt be computing for a prompt to wait and copy them."""
_MOVE_COST = 16
"""Moving a row costs about as much as decoding this many tokens that nobody asked for."""
_CALL_COST = 16
"""So does a second call of the model."""
_STARTERS = 64
"""So many replies may wait for their grammars at once."""


class LocalEngine:
    """Implements `types.Engine` on one model, with a thread of its own; callers may sit on any number of event loops.

    Requests join between decoding steps and leave when they end. The keys and values of a finished reply stay until
    their slot is needed: the next prompt that begins alike computes only what is new. A greedy reply does not depend
    on what else is under way; a sampled one depends on `Sampling.seed` as well.
    """

    def __init__(self, loaded: Loaded, settings: Settings = Settings()) -> None:
        """Try the model's cache and start; raises SettingsError, or EngineError for a model that cannot be served."""
        check(settings)
        self.loaded, self.settings = loaded, settings
        self._decoder = Decoder(
            loaded,
            settings.slots,
            settings.max_context,
            use_fused=settings.fused,
            prefill_dtype=settings.prefill_dtype,
        )
        self.context = self._decoder.context
        self._grammars = Grammars(loaded.renderer, loaded.tokenizer, self._decoder.vocabulary, settings.grammar)
        check_memory(settings, self._decoder.slots.most, self.context)
        self._starters = ThreadPoolExecutor(_STARTERS, "rolecraft-grammar")
        self._inbox: queue.SimpleQueue[Writing | Future[None] | None] = queue.SimpleQueue()
        self._waiting: list[Writing] = []
        self._filling: list[Writing] = []
        self._writing: list[Writing] = []
        self._idle_tokens = 0
        self._closed = False
        self._gate = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="rolecraft-engine", daemon=True)
        self._thread.start()

    async def complete(self, prompt: Prompt) -> tuple[Completion, ...]:
        """Return `prompt.sampling.n` completions; they share the computation of their prompt.

        Raises ContextFull for a prompt that leaves no room for a reply, EngineError for one that cannot be served, and
        DataError for tools or a prefix that its choice cannot be made a grammar with.
        """
        ids, roles = encode(self.loaded, prompt, self.context, self._decoder.limit)
        matcher = await self._matcher(prompt, ids)
        sequences = [self._submit(prompt, ids, roles, index, matcher) for index in range(prompt.sampling.n)]
        try:
            written = await asyncio.gather(*(asyncio.wrap_future(sequence.future) for sequence in sequences))
        finally:
            for sequence in sequences:
                sequence.future.cancel()
        return tuple(complete(self.loaded, prompt, ids, roles[-1], one) for one in written)

    async def stream(self, prompt: Prompt) -> AsyncIterator[Delta]:
        """Yield a reply's text as it is written, `prompt.prefix` first; the last delta holds the completion."""
        if prompt.sampling.n != 1:
            raise EngineError(f"a stream is one reply, not n={prompt.sampling.n}; ask complete() for several")
        ids, roles = encode(self.loaded, prompt, self.context, self._decoder.limit)
        matcher = await self._matcher(prompt, ids)
        loop, pieces = asyncio.get_running_loop(), asyncio.Queue[int | None]()

        def tell(token: int | None) -> None:
            with suppress(RuntimeError):  # the loop that asked is closed: nobody listens
                loop.call_soon_threadsafe(pieces.put_nowait, token)

        sequence = self._submit(prompt, ids, roles, 0, matcher, tell)
        sequence.future.add_done_callback(lambda _: tell(None))
        reader = Reader(self.loaded.renderer, prompt.sampling.stop)
        try:
            if prompt.prefix:
                yield Delta(prompt.prefix)
            while (token := await pieces.get()) is not None:
                if text := reader.read(token):
                    yield Delta(text)
            completion = complete(self.loaded, prompt, ids, roles[-1], sequence.future.result())
            yield Delta(reader.rest(), completion)
        finally:
            sequence.future.cancel()

    def forget(self) -> None:
        """Drop all cached keys and values; for when the model's weights have changed.

        Raises EngineError while replies are being written.
        """
        done: Future[None] = Future()
        self._put(done)
        done.result()

    def close(self) -> None:
        """Stop the thread; requests under way fail with EngineError. Safe to call twice."""
        self._end()
        self._thread.join()

    def __enter__(self) -> LocalEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def _matcher(self, prompt: Prompt, ids: tuple[int, ...]) -> Matcher | None:
        """Return what holds the reply to `prompt`, whose tokens are `ids`; None if it is free."""
        held = wanted(prompt, self.settings.constrain)
        if held is None:
            return None
        # A grammar may take long to compile, and those who wait for it would take all the threads that asyncio has.
        loop, start = asyncio.get_running_loop(), self._grammars.start
        return await loop.run_in_executor(self._starters, lambda: start(held, begun(self.loaded, prompt, ids)))

    def _submit(
        self,
        prompt: Prompt,
        ids: Sequence[int],
        roles: Sequence[int],
        index: int,
        matcher: Matcher | None,
        listen: Callable[[int], None] | None = None,
    ) -> Writing:
        sampling = prompt.sampling
        seeded = random.Random(f"{self.settings.seed}/{sampling.seed}/{index}")
        limit = min(sampling.max_tokens, self.context - len(ids))
        own = None if matcher is None else matcher.copy()
        sequence = Writing(keyed(ids, roles), roles[-1], sampling, limit, seeded, prompt.cache_scopes, listen, own)
        self._run_ahead(sequence)
        self._put(sequence)
        return sequence

    def _put(self, item: Writing | Future[None]) -> None:
        with self._gate:
            if self._closed:
                raise EngineError("the engine is closed; open a new LocalEngine")
            self._inbox.put(item)

    def _end(self) -> None:
        with self._gate:
            self._closed = True
        self._inbox.put(None)

    # Everything below runs on the engine's thread.

    def _run(self) -> None:
        with torch.inference_mode():
            while self._collect():
                try:
                    self._step()
                except Exception as error:  # noqa: BLE001 - a dead thread would leave every caller waiting for ever
                    self._fail(f"the model call failed with {type(error).__name__}: {error}")
            self._fail("the engine was closed before the reply was finished")

    def _collect(self) -> bool:
        """Take in what has arrived, waiting if there is nothing to do; False once the engine is to stop."""
        while not (self._busy() and self._inbox.empty()):
            item = self._inbox.get()
            if item is None:
                return False
            if isinstance(item, Writing):
                self._waiting.append(item)
            else:
                self._clear(item)
        return True

    def _busy(self) -> bool:
        return bool(self._waiting or self._filling or self._writing)

    def _clear(self, done: Future[None]) -> None:
        if self._busy():
            done.set_exception(EngineError("forget() while replies are being written; wait for them first"))
            return
        try:
            self._decoder.refresh()
        except Exception as error:  # noqa: BLE001 - whatever it is, weights read in part must not be played
            self._end()
            done.set_exception(
                EngineError(f"the weights could not be read again ({type(error).__name__}: {error}); open a new engine")
            )
        else:
            done.set_result(None)

    def _fail(self, reason: str) -> None:
        for sequence in (*self._waiting, *self._filling, *self._writing):
            with suppress(InvalidStateError):  # cancelled meanwhile
                sequence.future.set_exception(EngineError(reason))
        self._waiting, self._filling, self._writing = [], [], []
        self._decoder.slots.drop()

    def _step(self) -> None:
        """Let cancelled requests go and waiting ones in; compute some of the prompts, and a token of each reply."""
        for sequences in (self._waiting, self._filling, self._writing):
            for sequence in [one for one in sequences if one.future.cancelled()]:
                sequences.remove(sequence)
                if sequence.row >= 0:
                    self._decoder.slots.release(sequence.row)
        self._waiting = [sequence for sequence in self._waiting if not self._admit(sequence)]
        if self._filling:
            self._fill()
        if self._writing:
            self._write()

    def _admit(self, sequence: Writing) -> bool:
        """Give a prompt a row, with what any row already knows of it; False if it has to wait."""
        slots = self._decoder.slots
        taken = {other.row for other in (*self._filling, *self._writing)}
        if len(taken) == self.settings.slots:
            return False
        # Prompts that begin alike (n samples, episodes with the same tools) let the first one compute the beginning.
        _, soon = longest(sequence.prompt, sequence.sharing(self._filling))
        if soon >= _WORTH_WAITING and soon >= slots.find(sequence.prompt, sequence.scopes)[1] + _WORTH_WAITING:
            return False
        sequence.row, sequence.cached = slots.place(sequence.prompt, taken, sequence.scopes)
        self._filling.append(sequence)
        return True

    def _fill(self) -> None:
        """Compute prompt tokens of some sequences; those whose prompt is then complete write their first token."""
        chosen = sorted(self._batch(), key=lambda pair: pair[0].row)
        full, logits_BV = self._compute(chosen)
        going = self._continue(full, logits_BV)
        self._filling = [sequence for sequence in self._filling if sequence not in full]
        self._writing += going

    def _computed(self, sequence: Writing) -> int:
        return len(self._decoder.slots.tokens[sequence.row])

    def _compute(self, batch: list[tuple[Writing, list[int]]]) -> tuple[list[Writing], torch.Tensor]:
        """Compute new tokens of some sequences, in ascending order of row.

        Return those of which all is computed, with the logits (B, V) after the last token of each.
        """
        heeded = [s.heeded(len(new), self._computed(s) + len(new)) for s, new in batch]
        logits_BKV = self._decoder.fill([(s.row, new) for s, new in batch], max(1, *heeded))
        for (sequence, _), count, logits_KV in zip(batch, heeded, logits_BKV, strict=True):
            sequence.learn(logits_KV[len(logits_KV) - count :])
        full = [b for b, (s, _) in enumerate(batch) if not s.ahead(self._computed(s))]
        return [batch[b][0] for b in full], logits_BKV[full, -1]

    def _batch(self) -> list[tuple[Writing, list[int]]]:
        """Return sequences with the prompt tokens to compute next: the first to come, and others that pad it little."""
        most = self.settings.prefill_tokens
        batch: list[tuple[Writing, list[int]]] = []
        first = width = 0
        for sequence in self._filling:
            new = sequence.ahead(self._computed(sequence))[:most]
            first = first or len(new)
            wider = max(width, len(new))
            fits = not batch or wider * (len(batch) + 1) <= most
            if fits and abs(len(new) - first) <= max(first // 2, _WORTH_WAITING):
                batch.append((sequence, new))
                width = wider
        return batch

    def _write(self) -> None:
        """Compute what each reply has new: a token, or several at once where those after it were forced."""
        self._gather()
        batch = [(sequence, sequence.ahead(self._computed(sequence))) for sequence in self._writing]
        widths = [len(new) for _, new in batch]
        if max(widths) * len(batch) - sum(widths) > _CALL_COST:
            runs, singles = [pair for pair in batch if len(pair[1]) > 1], [pair for pair in batch if len(pair[1]) == 1]
        else:
            runs, singles = (batch, []) if max(widths) > 1 else ([], batch)
        going = self._continue(*self._compute(runs)) if runs else []
        if singles:
            logits_BV = self._decoder.write([(sequence.row, new[0]) for sequence, new in singles])
            for b, (sequence, _) in enumerate(singles):
                sequence.learn(logits_BV[b : b + 1])
            going += self._continue([sequence for sequence, _ in singles], logits_BV)
        self._writing = going

    def _gather(self) -> None:
        """Order the replies by row, and move rows together once the gaps between them have cost as much as moving."""
        self._writing.sort(key=lambda sequence: sequence.row)
        low, high = self._writing[0].row, self._writing[-1].row + 1
        self._idle_tokens += high - low - len(self._writing)
        if self._idle_tokens < _MOVE_COST:
            return
        self._idle_tokens = 0
        by_row = {sequence.row: sequence for sequence in (*self._filling, *self._writing)}
        holes = sorted(set(range(low, high)) - {sequence.row for sequence in self._writing})
        for hole, last in zip(holes, reversed(self._writing.copy()), strict=False):
            if hole > last.row:
                break
            self._decoder.slots.swap(hole, last.row)
            if hole in by_row:
                by_row[hole].row = last.row
            last.row = hole
        self._writing.sort(key=lambda sequence: sequence.row)

    def _continue(self, sequences: list[Writing], logits_BV: torch.Tensor) -> list[Writing]:
        """Draw a token for each sequence, and take those that it forces; return the sequences that go on."""
        asked = [(b, choice) for b, sequence in enumerate(sequences) if (choice := self._choice(sequence))]
        if not asked:
            return []
        drawing = [(sequences[b], choice) for b, choice in asked]
        if len(asked) < len(sequences):
            logits_BV = logits_BV[[b for b, _ in asked]]
        drawn = zip(drawing, *draw_each(drawing, logits_BV), strict=True)
        return [one for (one, choice), token, logprob in drawn if self._goes_on(one, choice, token, logprob)]

    def _goes_on(self, sequence: Writing, choice: Choice, token: int, logprob: float) -> bool:
        """Let a reply take a token; tell whether it then has more to write."""
        try:
            sequence.add(token, choice.forced)
            sequence.logprobs.append(logprob)
            sequence.stop = self._stop(sequence, token)
            self._run_ahead(sequence)
        except EngineError as error:
            self._refuse(sequence, error)
            return False
        if sequence.stop and sequence.known:
            self._finish(sequence, sequence.stop)
            return False
        return True

    def _choice(self, sequence: Writing) -> Choice | None:
        """Return what may come next; None for a sequence that has ended, or now does since nothing may."""
        if sequence.stop:
            self._finish(sequence, sequence.stop)
            return None
        try:
            return sequence.choice(self._decoder.vocabulary, self.settings.fast_forward)
        except EngineError as error:
            self._refuse(sequence, error)
            return None

    def _refuse(self, sequence: Writing, error: EngineError) -> None:
        """End a reply that its grammar cannot go on with; the others do."""
        self._decoder.slots.release(sequence.row)
        with suppress(InvalidStateError):  # cancelled meanwhile
            sequence.future.set_exception(error)

    def _run_ahead(self, sequence: Writing) -> None:
        """Take the tokens that the grammar leaves no choice for; they are computed together."""
        if sequence.matcher is None or sequence.stop or not self.settings.fast_forward:
            return
        for token in sequence.matcher.forced(sequence.left):
            sequence.add(token, forced=True)
            sequence.stop = self._stop(sequence, token)
            if sequence.stop:
                return

    def _stop(self, sequence: Writing, token: int) -> StopReason | None:
        if token in self.loaded.renderer.stop_ids:
            return "end"
        if sequence.sampling.stop and says(self.loaded.renderer, sequence.ids, sequence.sampling.stop):
            return "end"
        return "length" if len(sequence.ids) >= sequence.limit else None

    def _finish(self, sequence: Writing, stop: StopReason) -> None:
        self._decoder.slots.release(sequence.row)
        with suppress(InvalidStateError):  # cancelled meanwhile
            sequence.future.set_result(sequence.written(stop))


def open_local(
    base: str,
    adapter: Path | None = None,
    dtype: Dtype = "float32",
    device: str = "cpu",
    settings: Settings = Settings(),
) -> LocalEngine:
    """Load a model, its adapter merged if it can be, and return an engine on it, which closes itself after `with`.

    Workers call this, so that no model has to be sent to a process. Raises what `model.load` raises.
    """
    merge = adapter is not None and merges(adapter)
    return LocalEngine(load(base, dtype=dtype, adapter=adapter, device=device, merge=merge), settings)
