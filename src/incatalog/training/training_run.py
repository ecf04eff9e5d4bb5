"""The run folder of a training: opened or resumed, trained in, saved and closed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import set_seed
from transformers import PrinterCallback

from incatalog.artifacts import open_run
from incatalog.codes.semantic_ids import SemanticIds, index_name
from incatalog.devices import trains_on_cpu
from incatalog.model.backbone import Backbone
from incatalog.model.pretrained import quiet_libraries
from incatalog.model.saved import save_model
from incatalog.model.spec import ModelSpec, spec_file
from incatalog.recommender.items import ModelItems
from incatalog.recommender.model_card import write_card
from incatalog.training.callbacks import main_console, tensorboard
from incatalog.training.checkpoints import checkpoint_step, newest_checkpoint, remove_unusable
from incatalog.training.settings import TrainerSettings
from incatalog.training.trackers import TENSORBOARD, run_name, telling_trackers, trackers
from incatalog.training.validation import NDCG


class TrainingRun:
    """A training in one process or several; killed, it goes on from its newest whole checkpoint."""

    def __init__(self, stage: str, settings: Any, **options: Any) -> None:
        """Opens the folder `settings.out`, with options of `open_run`, and sets all seeds."""
        self._processes = processes = PartialState()
        self.folder: Path = settings.out
        self._report_to: tuple[str, ...] = settings.report_to
        count = processes.num_processes
        with processes.main_process_first():
            self._run = open_run(self.folder, stage, settings, processes=count, **options)
        self.finished = self._run.finished
        self.checkpoints = self.folder / "checkpoints"
        # Each of several processes takes a device of its own.
        on_cpu = processes.device.type == "cpu"
        self.device = "cpu" if on_cpu else f"cuda:{processes.local_process_index}"
        self.newest: Path | None = None
        if self.finished:
            # It may have been killed just before it deleted them.
            self._delete_checkpoints()
            return
        set_seed(settings.seed)
        if processes.is_main_process:
            remove_unusable(self.checkpoints, main_console())
        processes.wait_for_everyone()
        self.newest = newest_checkpoint(self.checkpoints)

    def arguments(
        self, settings: TrainerSettings, *, steps: int, validate: int, save: int, keep_best: bool
    ) -> dict[str, Any]:
        """What trainers are told; `validate` (0 for never) and `save` are every so many steps."""
        schedule, batch = settings.scheduler, settings.batch_size
        return {
            "output_dir": str(self.checkpoints),
            "per_device_train_batch_size": batch,
            "per_device_eval_batch_size": batch,
            "gradient_accumulation_steps": settings.gradient_accumulation,
            **settings.named("learning_rate", "weight_decay", "bf16", "logging_steps"),
            "warmup_steps": round(settings.warmup_ratio * steps),
            "lr_scheduler_type": "constant_with_warmup" if schedule == "constant" else schedule,
            "max_grad_norm": settings.clip_norm,
            "use_cpu": trains_on_cpu(settings.device),
            "eval_strategy": "steps" if validate else "no",
            "eval_steps": validate or None,
            "save_strategy": "steps",
            "save_steps": save,
            "save_total_limit": 2,
            "load_best_model_at_end": keep_best,
            "metric_for_best_model": NDCG if keep_best else None,
            "greater_is_better": True if keep_best else None,
            "dataloader_pin_memory": False,
            "ddp_find_unused_parameters": False,
            "disable_tqdm": True,
            **self.reporting(),
        }

    def reporting(self) -> dict[str, Any]:
        """What trainers are told of the trackers, and how the run is called there."""
        return {
            # A trainer takes the word for none, and not an empty list, in every version.
            "report_to": trackers(self._report_to) or "none",
            "run_name": run_name(self.folder),
            "project": "incatalog",
        }

    def train(self, trainer: Any, *, printed: bool = False) -> Any:
        """Trains from the newest checkpoint on; `printed` has the trainer print its log, too."""
        if not printed:
            trainer.remove_callback(PrinterCallback)
        if TENSORBOARD in self._report_to and self._processes.is_main_process:
            trainer.add_callback(tensorboard(self.folder, after=checkpoint_step(self.newest)))
        with quiet_libraries(), telling_trackers(self._report_to):
            return trainer.train(resume_from_checkpoint=self.newest and str(self.newest))

    def finish(self, save: Callable[[Path], None], **results: Any) -> Path:
        """The main process saves what was trained and closes the run, while the others wait."""
        if self._processes.is_main_process:
            save(self.folder)
            if spec_file(self.folder).exists():
                write_card(self.folder, results)
            self._run.finish(**results)
            self._delete_checkpoints()
        self._processes.wait_for_everyone()
        return self.folder

    def _delete_checkpoints(self) -> None:
        if self._processes.is_main_process:
            shutil.rmtree(self.checkpoints, ignore_errors=True)


@dataclass(frozen=True)
class TrainedModel:
    """A model that is trained, with its items and the folder that their codes were read from."""

    backbone: Backbone
    spec: ModelSpec
    items: ModelItems
    semantic_ids: SemanticIds | None
    index: Path

    def save(self, folder: Path) -> None:
        """Writes it as a folder to recommend with."""
        catalog, aliases = self.items.catalog, self.items.aliases
        catalog.save(folder)
        if self.semantic_ids is not None:
            self.semantic_ids.save(folder, index_name(self.index) or catalog.name, catalog)
        if aliases:
            aliases.save(folder, catalog)
        save_model(folder, self.backbone, self.spec)
