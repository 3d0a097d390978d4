"""Decides, step by step, which requests are prefilled and which are decoded together, on a thread of its own.

Requests join between steps and leave when they end (continuous batching).
"""

from __future__ import annotations

import queue
import threading
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress

import torch

from rolecraft.engine.kv_cache import longest_prefix
from rolecraft.engine.model_runner import ModelRunner
from rolecraft.engine.request import Allowed, Request, sample_each
from rolecraft.engine.settings import Settings
from rolecraft.errors import DataError, EngineError

_WORTH_WAITING = 16
"""So many more of its tokens must another prompt be computing for a prompt to wait and copy them."""
_MOVE_COST = 16
"""Moving a row costs about as much as decoding this many tokens that nobody asked for."""
_LOGITS = 2**25
"""Logits that a request's scored tokens may have at once: 128 MiB in float32."""
_CALL_COST = 16
"""So does a second call of the model."""


class Scheduler:
    """Runs requests on one model until it is closed; any thread may submit them.

    A request waits until a row of the KV cache is free, is prefilled in pieces, and then decoded, one step at a time
    beside the others. The keys and values of a finished request stay until their row is needed.
    """

    def __init__(self, runner: ModelRunner, settings: Settings) -> None:
        """Start the thread."""
        self._runner, self._settings = runner, settings
        self._inbox: queue.SimpleQueue[Request | Future[None] | None] = queue.SimpleQueue()
        self._waiting: list[Request] = []
        self._prefilling: list[Request] = []
        self._decoding: list[Request] = []
        self._wasted_tokens = 0
        self._closed = False
        self._gate = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="rolecraft-engine", daemon=True)
        self._thread.start()

    def submit(self, request: Request) -> None:
        """Let the request be run; its future gets the output. Raises EngineError once closed."""
        if self._settings.fast_forward:
            request.fast_forward()
        self._put(request)

    def refresh(self) -> None:
        """Forget the KV cache and take the model's weights as they are now.

        Raises EngineError while requests are running, and, closing, where the weights cannot be read.
        """
        done: Future[None] = Future()
        self._put(done)
        done.result()

    def close(self) -> None:
        """Stop the thread; requests that are running fail with EngineError. Safe to call twice."""
        self._end()
        self._thread.join()

    def _put(self, item: Request | Future[None]) -> None:
        with self._gate:
            if self._closed:
                raise EngineError("the engine is closed; open a new LocalEngine")
            self._inbox.put(item)

    def _end(self) -> None:
        with self._gate:
            self._closed = True
        self._inbox.put(None)

    # Everything below runs on the scheduler's thread.

    def _run(self) -> None:
        with torch.inference_mode():
            while self._receive():
                try:
                    self._step()
                except Exception as error:  # noqa: BLE001 - a dead thread would leave every caller waiting for ever
                    self._fail_all(f"the model call failed with {type(error).__name__}: {error}")
            self._fail_all("the engine was closed before the reply was finished")

    def _receive(self) -> bool:
        """Take in what was submitted, waiting if there is nothing to do; False once the thread is to stop."""
        while not (self._is_busy() and self._inbox.empty()):
            item = self._inbox.get()
            if item is None:
                return False
            if isinstance(item, Request):
                self._waiting.append(item)
            else:
                self._refresh(item)
        return True

    def _is_busy(self) -> bool:
        return bool(self._waiting or self._prefilling or self._decoding)

    def _refresh(self, done: Future[None]) -> None:
        if self._is_busy():
            done.set_exception(EngineError("forget() while replies are being written; wait for them first"))
            return
        try:
            self._runner.refresh()
        except Exception as error:  # noqa: BLE001 - whatever it is, weights read in part must not be played
            self._end()
            done.set_exception(
                EngineError(f"the weights could not be read again ({type(error).__name__}: {error}); open a new engine")
            )
        else:
            done.set_result(None)

    def _fail_all(self, reason: str) -> None:
        leaders = (*self._waiting, *self._prefilling, *self._decoding)
        for request in (one for leader in leaders for one in leader.with_twins()):
            with suppress(InvalidStateError):  # cancelled meanwhile
                request.future.set_exception(EngineError(reason))
        self._waiting, self._prefilling, self._decoding = [], [], []
        self._runner.cache.reset()

    def _step(self) -> None:
        """Drop cancelled requests and admit waiting ones; prefill some of the prompts, and decode a token of each."""
        for requests in (self._waiting, self._prefilling, self._decoding):
            for place, request in reversed(list(enumerate(requests))):
                if not any(one.future.cancelled() for one in (request, *request.twins)):
                    continue
                going = [one for one in request.with_twins() if not one.future.cancelled()]
                requests[place : place + 1] = [self._lead(request.row, going)] if going else []
                if not going:
                    self._free(request)
        self._waiting = [request for request in self._waiting if not self._admit(request)]
        if self._prefilling:
            self._prefill()
        if self._decoding:
            self._decode()

    def _lead(self, row: int, requests: list[Request]) -> Request:
        """Let the first of some replies that have written the same have the row, and the others be its twins."""
        leader, *twins = requests
        for twin in twins:
            twin.row = -1
        leader.row, leader.twins = row, twins
        return leader

    def _free(self, request: Request) -> None:
        if request.row >= 0:
            self._runner.cache.free(request.row)

    def _admit(self, request: Request) -> bool:
        """Give a request a row, with what any row has cached of its prompt; False if it has to wait.

        One whose very prompt is being computed needs none before its reply is another one.
        """
        cache = self._runner.cache
        if (other := next((one for one in self._prefilling if request.may_join(one)), None)) is not None:
            request.cached = len(request.prompt)
            other.twins.append(request)
            return True
        taken = {other.row for other in (*self._prefilling, *self._decoding)}
        if len(taken) == self._settings.max_requests:
            return False
        if request.was_twin:  # all but its last token is there
            request.row, _ = cache.allocate(request.uncomputed(0), taken, request.scopes)
            alone = len(request.uncomputed(self._computed(request))) == 1
            (self._decoding if alone else self._prefilling).append(request)
            return True
        # Prompts that begin alike (episodes with the same tools) let the first one compute the beginning.
        _, soon = longest_prefix(request.prompt, request.sharing(self._prefilling))
        if soon >= _WORTH_WAITING and soon >= cache.find_prefix(request.prompt, request.scopes)[1] + _WORTH_WAITING:
            return False
        request.row, request.cached = cache.allocate(request.prompt, taken, request.scopes)
        self._prefilling.append(request)
        return True

    def _prefill(self) -> None:
        """Compute prompt tokens of some requests; those whose prompt is then complete get their first token."""
        chosen = sorted(self._prefill_batch(), key=lambda pair: pair[0].row)
        complete, logits_BV = self._compute(chosen)
        going = self._draw(complete, logits_BV)
        self._prefilling = [request for request in self._prefilling if request not in complete]
        self._decoding += going

    def _prefill_batch(self) -> list[tuple[Request, list[int]]]:
        """Return requests with the prompt tokens to compute next: the first to come, and others that pad it little."""
        most = self._settings.prefill_tokens
        batch: list[tuple[Request, list[int]]] = []
        first = width = 0
        for request in self._prefilling:
            new = request.uncomputed(self._computed(request))[: self._most(request)]
            first = first or len(new)
            wider = max(width, len(new))
            fits = not batch or wider * (len(batch) + 1) <= most
            if fits and abs(len(new) - first) <= max(first // 2, _WORTH_WAITING):
                batch.append((request, new))
                width = wider
        return batch

    def _most(self, request: Request) -> int:
        """Return how many tokens of a request are computed at once; where logits after each are kept, they must fit."""
        most = self._settings.prefill_tokens
        return min(most, max(1, _LOGITS // self._runner.vocabulary)) if request.roles else most

    def _computed(self, request: Request) -> int:
        return len(self._runner.cache.tokens[request.row])

    def _compute(self, batch: list[tuple[Request, list[int]]]) -> tuple[list[Request], torch.Tensor]:
        """Compute new tokens of some requests, in ascending order of row.

        Return those of which all is computed, with the logits (B, V) after the last token of each.
        """
        needed = [r.logits_needed(len(new), self._computed(r) + len(new)) for r, new in batch]
        logits_BKV = self._runner.prefill([(r.row, new) for r, new in batch], max(1, *needed))
        for (request, _), count, logits_KV in zip(batch, needed, logits_BKV, strict=True):
            request.record_logprobs(logits_KV[len(logits_KV) - count :])
        complete = [b for b, (r, _) in enumerate(batch) if not r.uncomputed(self._computed(r))]
        return [batch[b][0] for b in complete], logits_BKV[complete, -1]

    def _decode(self) -> None:
        """Compute what each reply has new: a token, or several at once where those after it were forced."""
        self._compact()
        batch = [(request, request.uncomputed(self._computed(request))) for request in self._decoding]
        widths = [len(new) for _, new in batch]
        # One token is a reply's and more are a prompt's, which may be multiplied in another form.
        if self._runner.is_exact or max(widths) * len(batch) - sum(widths) > _CALL_COST:
            runs, singles = [pair for pair in batch if len(pair[1]) > 1], [pair for pair in batch if len(pair[1]) == 1]
        else:
            runs, singles = (batch, []) if max(widths) > 1 else ([], batch)
        going = self._draw(*self._compute(runs)) if runs else []
        if singles:
            logits_BV = self._runner.decode([(request.row, new[0]) for request, new in singles])
            for b, (request, _) in enumerate(singles):
                request.record_logprobs(logits_BV[b : b + 1])
            going += self._draw([request for request, _ in singles], logits_BV)
        self._decoding = going

    def _compact(self) -> None:
        """Order requests by row, and move rows together once the gaps between them have cost as much as moving."""
        self._decoding.sort(key=lambda request: request.row)
        low, high = self._decoding[0].row, self._decoding[-1].row + 1
        self._wasted_tokens += high - low - len(self._decoding)
        if self._wasted_tokens < _MOVE_COST:
            return
        self._wasted_tokens = 0
        by_row = {request.row: request for request in (*self._prefilling, *self._decoding)}
        holes = sorted(set(range(low, high)) - {request.row for request in self._decoding})
        for hole, last in zip(holes, reversed(self._decoding.copy()), strict=False):
            if hole > last.row:
                break
            self._runner.cache.swap(hole, last.row)
            if hole in by_row:
                by_row[hole].row = last.row
            last.row = hole
        self._decoding.sort(key=lambda request: request.row)

    def _draw(self, leaders: list[Request], logits_BV: torch.Tensor) -> list[Request]:
        """Sample a token for each request and its twins; return those that go on and have a row."""
        rows = [(request.row, request.with_twins()) for request in leaders]
        if all(len(together) == 1 for _, together in rows):
            return self._sample(leaders, logits_BV)
        places = [b for b, (_, together) in enumerate(rows) for _ in together]
        going = {id(one) for one in self._sample([one for _, twins in rows for one in twins], logits_BV[places])}
        return [
            one for row, together in rows for one in self._parted(row, [one for one in together if id(one) in going])
        ]

    def _parted(self, row: int, together: list[Request]) -> list[Request]:
        """Give rows of their own to those of a row's replies that have drawn another token; return all with a row."""
        groups: dict[int, list[Request]] = {}
        for request in together:
            groups.setdefault(request.ids[-1], []).append(request)
        if not groups:
            return []
        first, *others = groups.values()
        found = [self._lead(row, first)]
        # They are admitted before the next step, as far as there are rows.
        self._waiting[:0] = [self._lead(-1, group) for group in others]
        return found

    def _sample(self, requests: list[Request], logits_BV: torch.Tensor) -> list[Request]:
        """Sample a token for each request, and append those that it forces; return the requests that go on."""
        open_ones = [
            (b, allowed)
            for b, request in enumerate(requests)
            if (allowed := self._allowed(request)) and not self._doubt(request, allowed, logits_BV[b])
        ]
        if not open_ones:
            return []
        batch = [(requests[b], allowed) for b, allowed in open_ones]
        if len(open_ones) < len(requests):
            logits_BV = logits_BV[[b for b, _ in open_ones]]
        sampled = zip(batch, *sample_each(batch, logits_BV), strict=True)
        return [one for (one, allowed), token, logprob in sampled if self._append(one, allowed, token, logprob)]

    def _allowed(self, request: Request) -> Allowed | None:
        """Return what may come next; None for a request that has ended, or now does since nothing may."""
        if request.stop:
            self._finish(request)
            return None
        try:
            return request.allowed(self._runner.vocabulary, self._settings.fast_forward)
        except (EngineError, DataError) as error:
            self._fail(request, error)
            return None

    def _doubt(self, request: Request, allowed: Allowed, logits_V: torch.Tensor) -> bool:
        """End a reply whose model would call a tool that is not offered; tell whether it did."""
        if allowed.doubted is None:
            return False
        request.doubt.add(logits_V, allowed.doubted)
        if not request.ids or not request.doubt.prevails:
            return False
        request.stop = "end"
        self._finish(request, doubted=True)
        return True

    def _append(self, request: Request, allowed: Allowed, token: int, logprob: float) -> bool:
        """Append a token to a reply; tell whether it goes on."""
        try:
            request.append(token, allowed.forced)
            request.logprobs.append(logprob)
            if self._settings.fast_forward:
                request.fast_forward()
        except (EngineError, DataError) as error:
            self._fail(request, error)
            return False
        if request.is_finished:
            self._finish(request)
            return False
        return True

    def _fail(self, request: Request, error: EngineError | DataError) -> None:
        """End a request that its grammar cannot go on with; the others do."""
        self._free(request)
        with suppress(InvalidStateError):  # cancelled meanwhile
            request.future.set_exception(error)

    def _finish(self, request: Request, *, doubted: bool = False) -> None:
        assert request.stop is not None
        self._free(request)
        with suppress(InvalidStateError):  # cancelled meanwhile
            request.future.set_result(request.output(request.stop, doubted=doubted))
