"""transformers' Trainer with our loss and our batches, whole checkpoints, and a stop that can be resumed.

Not covered: when held-out rows are measured (`validation`), and padding-free batches.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib.util
import math
import operator
import shutil
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from rolecraft import objectives, workers
from rolecraft.adapters import Adapter
from rolecraft.errors import MissingExtra, RolecraftError, SettingsError
from rolecraft.model import no_bar
from rolecraft.recipe import TrainingSettings
from rolecraft.recomputing import is_checkpointed, recomputing
from rolecraft.train.batches import Batch, Schedule
from rolecraft.train.checkpoints import folders as checkpoint_folders
from rolecraft.train.checkpoints import mark_whole


class Batches(Protocol):
    """Tensors of the batches that a schedule plans."""

    def __len__(self) -> int:
        """Return how many there are of what the schedule plans by."""
        ...

    def __getitem__(self, batch: Batch) -> dict[str, Any]:
        """Return a batch."""
        ...


_REPORTERS = ("tensorboard", "wandb", "trackio")
_OURS = {
    "output_dir": "give the output folder itself",
    "resume_from_checkpoint": "resume instead",
    "ignore_data_skip": "a resumed run has to see the data in the same order",
    "save_only_model": "a checkpoint without the optimizer cannot be resumed",
    "save_strategy": "use training.save_steps",
    "gradient_checkpointing_kwargs": "use activation_checkpointing_kwargs",
    "activation_checkpointing": "use training.gradient_checkpointing",
    "auto_find_batch_size": "a step's examples are planned before it",
    "train_sampling_strategy": "batches are planned by rolecraft.batches",
    "length_column_name": "batches are planned by rolecraft.batches",
    "dataloader_drop_last": "batches are planned by rolecraft.batches",
    "data_seed": "use training.seed",
    "remove_unused_columns": "there are no columns",
    "label_names": "there are no columns",
    "label_smoothing_factor": "the loss is rolecraft.objectives'",
    "use_liger_kernel": "the loss is rolecraft.objectives'",
    "average_tokens_across_devices": "the loss is always the mean over the whole step",
    "push_to_hub": "push the output folder when it is finished",
    "load_best_model_at_end": "evaluate checkpoints with rolecraft eval",
    "disable_tqdm": "progress is rolecraft's own",
    "do_train": "",
    "do_eval": "",
    "do_predict": "",
}
"""Names of TrainingArguments that would do harm or nothing here, and what to do instead."""


@dataclasses.dataclass(frozen=True, slots=True)
class Objective:
    """What is minimised, and the names of what else it measures.

    `loss` takes the losses and the weights of the trained tokens (N,), and the batch, and returns the batch's share of
    the step's loss, with the sum and the count of each measure (M, 2).
    """

    loss: Callable[[torch.Tensor, torch.Tensor, Mapping[str, Any]], tuple[torch.Tensor, torch.Tensor]]
    measures: tuple[str, ...] = ()


def _imitated(
    losses_N: torch.Tensor, weights_N: torch.Tensor, inputs: Mapping[str, Any]
) -> tuple[torch.Tensor, torch.Tensor]:
    return objectives.weighted_sum(losses_N, weights_N), losses_N.new_zeros(0, 2)


IMITATION = Objective(_imitated)
"""Every trained token is to become as likely as can be."""


class RoleTrainer(Trainer):  # type: ignore[misc]  # transformers' own place to put a loss and batches
    """transformers' Trainer with our loss and batches; checkpoints, schedules, DDP and logging stay its own."""

    loss_is_scaled_for_ga = True

    def __init__(
        self,
        model: Any,
        arguments: TrainingArguments,
        rows: Batches,
        schedule: Schedule,
        adapter: Adapter,
        speakers: Sequence[str],
        callbacks: Sequence[TrainerCallback],
        objective: Objective = IMITATION,
    ) -> None:
        self._rows, self._schedule, self._adapter, self._objective = rows, schedule, adapter, objective
        self._told = (*(f"loss/{name}" for name in speakers), *objective.measures)
        self._speakers = len(speakers)
        self._head = model.get_output_embeddings()
        follow = _Follow(schedule, self._start_clock)
        caches = getattr(model.config, "use_cache", None)
        super().__init__(model=model, args=arguments, train_dataset=rows, callbacks=[follow, *callbacks])
        # It was turned off, and saved so a whole model would play without; the loss asks for none by itself.
        model.config.use_cache = caches
        self.remove_callback(PrinterCallback)
        self._parameters = model.num_parameters(exclude_embeddings=True)
        self._start_clock(0)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save what is trained, without transformers' bar of the files that it writes."""
        with no_bar():
            super().save_model(output_dir, _internal_call)

    def load_weights(self, checkpoint: Path) -> None:
        """Take the trained weights of a checkpoint, as going on from it would."""
        self._load_from_checkpoint(str(checkpoint))

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Return this process's batches; they are planned for all processes, so accelerate must not share them out."""
        return DataLoader(
            self._rows,  # type: ignore[arg-type]  # DataLoader asks for no more than items and a length
            batch_sampler=self._schedule,
            collate_fn=operator.itemgetter(0),
        )

    def compute_loss(
        self,
        model: Any,
        inputs: Mapping[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: object = None,
    ) -> Any:
        """Return this batch's share of the step's mean loss, times the number of processes that DDP averages over.

        The adapter's penalty is added for each batch, and averaged over the step's.
        """
        losses_N, weights_N, speakers_N, outputs = self.token_losses(model, inputs)
        share, measured = self._objective.loss(losses_N, weights_N, inputs)
        by_speaker = objectives.sums_by_speaker(losses_N, speakers_N, self._speakers)
        self._tally += torch.cat((by_speaker, measured.to(by_speaker)))
        self._tokens += inputs["tokens"]
        penalty = self._adapter.penalty(self.model) / self.args.gradient_accumulation_steps
        loss = share * self.args.world_size + penalty
        return (loss, outputs) if return_outputs else loss

    def token_losses(self, model: Any, inputs: Mapping[str, Any]) -> tuple[Any, Any, Any, Any]:
        """Return the losses, weights and speakers of the trained tokens (N,), and the model's output."""
        ids_BT, speakers_BT = inputs["ids_BT"], inputs["speakers_BT"]
        keep_BT, targets_N, weights_N = objectives.next_token_targets(ids_BT, inputs["weights_BT"])
        call = dict(inputs.get("call", {}))
        if "roles_BT" in inputs:
            call |= self._adapter.inputs(inputs["roles_BT"], inputs.get("times_BT"))
        with (
            recomputing(ids_BT.device, checkpointed=is_checkpointed(model)),
            objectives.only_logits_at(self._head, keep_BT),
        ):
            outputs = model(input_ids=ids_BT, use_cache=False, **call)
        losses_N = objectives.token_losses(objectives.pick_logits(outputs.logits, keep_BT), targets_N)
        speakers_N = speakers_BT[:, 1:][keep_BT[:, :-1]]
        return losses_N, weights_N, speakers_N, outputs

    def floating_point_ops(self, inputs: Mapping[str, Any]) -> int:
        """Return the batch's floating-point operations; transformers' own counts all parameters again in every step."""
        return 6 * int(inputs["ids_BT"].numel()) * int(self._parameters)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add each speaker's mean loss and the pace to the logs; raises RolecraftError if the loss is not finite."""
        if "loss" in logs:
            if not math.isfinite(logs["loss"]):
                raise RolecraftError(
                    f"the loss is {logs['loss']} at step {self.state.global_step}; lower training.learning_rate, "
                    "raise training.warmup_steps, or use bf16 instead of float16"
                )
            logs = {**logs, **self._means_and_pace(), **self._adapter.measure(self.model)}
        super().log(logs, start_time)

    def _start_clock(self, step: int) -> None:
        """Begin to count tokens, seconds, each speaker's losses and the objective's measures (S + M, 2) anew."""
        self._tally = torch.zeros(len(self._told), 2, device=self.args.device)
        self._tokens, self._logged_step, self._logged_at = 0, step, time.monotonic()

    def _means_and_pace(self) -> dict[str, float]:
        """Return what all processes saw since the last log; the one place where the tally is waited for."""
        seen = torch.cat((self._tally, self._tally.new_tensor([[self._tokens, 0]])))
        if self.args.world_size > 1:
            torch.distributed.all_reduce(seen)
        *told, (tokens, _) = seen.tolist()
        seconds, steps = time.monotonic() - self._logged_at, self.state.global_step - self._logged_step
        self._start_clock(self.state.global_step)
        means = {name: total / count for name, (total, count) in zip(self._told, told, strict=True) if count}
        left = (self.state.max_steps - self.state.global_step) * seconds / max(1, steps)
        return {**means, "tokens_per_second": tokens / seconds, "seconds_left": left}


class _Follow(TrainerCallback):  # type: ignore[misc]
    """Tells the schedule which epoch begins (transformers tells its own samplers only), and the clock when to start."""

    def __init__(self, schedule: Schedule, start_clock: Callable[[int], None]) -> None:
        self._schedule, self._start_clock = schedule, start_clock

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._start_clock(state.global_step)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._schedule.set_epoch(int(state.epoch))


class StopOnSignal(TrainerCallback):  # type: ignore[misc]
    """On SIGINT or SIGTERM lets the step end, saves a checkpoint and stops all processes at the same step.

    A second signal acts as it would without us. Use it as a context around the training.
    """

    def __init__(self) -> None:
        self.stopped = False
        self._asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopOnSignal:
        """Listen to the signals; does nothing outside the main thread, where Python does not allow it."""
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        """Give the signals back."""
        self._restore()

    @property
    def asked(self) -> bool:
        """Whether a signal came, for a loop that is no Trainer's."""
        return self._asked

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._anyone_asked(args, state.global_step):
            self.stopped = state.global_step < state.max_steps
            control.should_save = True
            control.should_training_stop = True

    def _anyone_asked(self, args: Any, step: int) -> bool:
        if args.world_size == 1:
            return self._asked
        # On an accelerator the answer costs a wait for the device, so it is asked for less often.
        if args.device.type != "cpu" and step % 16:
            return False
        asked = torch.tensor(float(self._asked), device=args.device)
        torch.distributed.all_reduce(asked)
        return bool(asked)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


class WholeCheckpoints(TrainerCallback):  # type: ignore[misc]
    """Marks each checkpoint as whole once all processes have written it to disk, and only then removes older ones.

    `accompany` writes what should lie beside the adapter; `facts` are kept in the mark.
    """

    def __init__(self, limit: int, accompany: Callable[[Path], None], facts: Mapping[str, Any]) -> None:
        self._limit, self._accompany, self._facts = limit, accompany, dict(facts)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        args.distributed_state.wait_for_everyone()
        if args.should_save:
            self._accompany(folder)
            mark_whole(folder, {**self._facts, "step": state.global_step, "of": state.max_steps})
            for old in checkpoint_folders(folder.parent)[: -self._limit]:
                shutil.rmtree(old)
        args.distributed_state.wait_for_everyone()


def device_of(training: TrainingSettings) -> torch.device:
    """Return the kind of device that a run trains on: this machine's accelerator, unless it is told `use_cpu`."""
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return torch.device("cpu") if accelerator is None or training.extra.get("use_cpu") else accelerator


def arguments_for(training: TrainingSettings, output_dir: Path) -> TrainingArguments:
    """Return transformers' TrainingArguments; raises SettingsError for a bad value, MissingExtra for a reporter.

    It also meets the other processes, if there are any.
    """
    reporters = (training.report_to,) if isinstance(training.report_to, str) else training.report_to
    for name in reporters:
        if name in _REPORTERS and importlib.util.find_spec(name) is None:
            raise MissingExtra(name, name)
    _check_extra(training.extra)
    on_cpu = device_of(training).type == "cpu"
    same = (
        "learning_rate num_train_epochs max_steps per_device_train_batch_size gradient_accumulation_steps "
        "lr_scheduler_type warmup_steps weight_decay max_grad_norm bf16 logging_steps seed"
    ).split()
    values: dict[str, Any] = {
        **{name: getattr(training, name) for name in same},
        "output_dir": str(output_dir),
        "run_name": output_dir.name,
        "report_to": list(reporters),
        "save_strategy": "steps" if training.save_steps else "no",
        "save_steps": training.save_steps or 1,
        "activation_checkpointing": training.gradient_checkpointing,
        "activation_checkpointing_kwargs": {"use_reentrant": False} if training.gradient_checkpointing else None,
        "use_cpu": on_cpu,
        "ddp_backend": "gloo" if on_cpu and workers.is_worker() else None,
        "ddp_find_unused_parameters": False,
        "logging_nan_inf_filter": False,
        "disable_tqdm": True,
    }
    try:
        arguments = TrainingArguments(**{**values, **training.extra})
    except (ValueError, TypeError, ImportError) as error:
        raise SettingsError(f"training: {error}") from error
    arguments._n_gpu = min(1, arguments.n_gpu)  # several GPUs are for several processes, not for DataParallel
    return arguments


def _check_extra(extra: Mapping[str, Any]) -> None:
    known = {field.name for field in dataclasses.fields(TrainingArguments)}
    ours = {field.name for field in dataclasses.fields(TrainingSettings)}
    for name in extra:
        if name in ours:
            raise SettingsError(f"training.extra has {name!r}; write it as training.{name}")
        if name in _OURS or name.startswith("eval_"):
            reason = _OURS.get(name) or "use training.eval_steps while it trains, or use rolecraft eval"
            raise SettingsError(f"training.extra cannot set {name!r}: {reason}")
        if name not in known:
            near = difflib.get_close_matches(str(name), sorted(known | ours), n=1, cutoff=0.5)
            hint = f"Did you mean {near[0]!r}?" if near else "See transformers' TrainingArguments for the names."
            raise SettingsError(f"unknown key {name!r} in training.extra. {hint}")
