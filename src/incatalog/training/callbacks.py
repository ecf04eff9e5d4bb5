"""What a training shows while it runs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accelerate import PartialState
from rich.console import Console
from rich.progress import MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from transformers import TrainerCallback
from transformers.integrations import TensorBoardCallback

from incatalog.errors import require
from incatalog.progress import Report, time_left
from incatalog.storage import writing

_SHOWN = {
    "loss": "loss {:.4f}",
    "eval_loss": "validation loss {:.4f}",
    "eval_NDCG@10": "NDCG@10 {:.4f}",
    "eval_HR@10": "HR@10 {:.4f}",
    "learning_rate": "learning rate {:.2e}",
}


@dataclass(eq=False)
class ProgressReport(TrainerCallback):  # type: ignore[misc]
    """A progress bar on a terminal, a line for each entry of the log elsewhere."""

    console: Console
    _bar: Report = field(init=False)
    _started: float = field(default=0.0, init=False)
    _first: int = field(default=0, init=False)  # steps done before an interruption
    _loss: str = field(default="", init=False)
    _warned: bool = field(default=False, init=False)

    def on_train_begin(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        """Opens the bar."""
        loss = TextColumn("{task.fields[loss]}")
        columns = (MofNCompleteColumn(), loss, TimeElapsedColumn(), TimeRemainingColumn())
        fields = {"completed": state.global_step, "loss": ""}
        self._started, self._first = time.monotonic(), state.global_step
        self._bar = Report("train sft", state.max_steps, *columns, console=self.console, **fields)
        self._bar.start()

    def on_step_end(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        """Moves the bar."""
        self._bar.show(completed=state.global_step, loss=self._loss)

    def on_log(self, _args: Any, state: Any, _control: Any, logs: Any = None, **_: Any) -> None:
        """Shows losses, and says once if histories had to be cut."""
        if not state.is_world_process_zero or not logs:
            return
        if "loss" in logs:
            self._loss = f"loss {float(logs['loss']):.3f}"
        if logs.get("history_items_cut") and not self._warned:
            self._warned = True
            self.console.print(
                f"step {state.global_step}: {logs['history_items_cut']} history items were cut, "
                "oldest first, to keep samples within --max-length (counted in the log)"
            )
        if "eval_loss" in logs or ("loss" in logs and self._bar.disable):
            line, done = _line(state, logs, _SHOWN), state.global_step - self._first
            if 0 < done < state.max_steps - self._first:
                line += f", {time_left(self._started, done, state.max_steps - self._first)} left"
            self.console.print(f"train sft: {line}")

    def on_train_end(self, _args: Any, _state: Any, _control: Any, **_: Any) -> None:
        """Closes the bar."""
        self._bar.stop()


@dataclass(eq=False)
class RewardReport(TrainerCallback):  # type: ignore[misc]
    """A line for each entry of a reinforcement learning's log."""

    console: Console
    shown: Mapping[str, str]  # How each value is written, by its name in the log

    def on_log(self, _args: Any, state: Any, _control: Any, logs: Any = None, **_: Any) -> None:
        """Shows what is in the log of the values to show."""
        if not state.is_world_process_zero or not logs:
            return
        if line := _line(state, logs, self.shown):
            self.console.print(f"train grpo: {line}", highlight=False)


class RoomForLogs(TensorBoardCallback):  # type: ignore[misc]
    """TensorBoard's log, whose own thread would report a full disk without naming the folder."""

    def on_log(self, *args: Any, **kwargs: Any) -> None:
        """Writes an entry."""
        with writing(self.tb_writer.log_dir):
            super().on_log(*args, **kwargs)
            self.tb_writer.flush()

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        """Writes what is left."""
        with writing(self.tb_writer.log_dir):
            super().on_train_end(*args, **kwargs)


def tensorboard(out: Path, after: int) -> TensorBoardCallback:
    """The log of a run, without what an interrupted one wrote after its newest checkpoint."""
    require("tensorboard", extra="train")
    from torch.utils.tensorboard import SummaryWriter

    with writing(out / "tensorboard"):
        return RoomForLogs(SummaryWriter(str(out / "tensorboard"), purge_step=after + 1))


@dataclass(eq=False)
class BestKept(TrainerCallback):  # type: ignore[misc]
    """Validates the last step too, and ends a training that no longer gets better.

    It decides by the log, which checkpoints hold: a resumed training stops where an uninterrupted
    one would have.
    """

    metric: str  # The log's name of what should grow
    patience: int = 0  # Validations to wait for it; 0 waits for ever

    def on_step_end(self, _args: Any, state: Any, control: Any, **_: Any) -> None:
        """Asks for the last validation."""
        if self._exhausted(state):
            control.should_training_stop = True
        elif state.global_step >= state.max_steps:
            control.should_evaluate = True

    def on_evaluate(self, _args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stops when the newest validations were no better than one before them."""
        if self._exhausted(state):
            control.should_training_stop = True

    def _exhausted(self, state: Any) -> bool:
        values = [entry[self.metric] for entry in state.log_history if self.metric in entry]
        if not self.patience or len(values) <= self.patience:
            return False
        return bool(max(values[-self.patience :]) <= max(values[: -self.patience]))


def main_console() -> Console:
    """Standard error of the main process; the others are silent."""
    return Console(stderr=True, soft_wrap=True, quiet=not PartialState().is_main_process)


def _line(state: Any, logs: Mapping[str, Any], shown: Mapping[str, str]) -> str:
    """The step and what is logged of the values to show; empty where nothing is."""
    found = {name: logs.get(name) for name in shown}
    values = [shown[name].format(float(v)) for name, v in found.items() if v is not None]
    return ", ".join([f"step {state.global_step}/{state.max_steps}", *values]) if values else ""
