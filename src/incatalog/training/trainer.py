"""The transformers `Trainer` with the trie-scoped loss, fixed sample order and safe resumption."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from functools import cache
from types import MethodType
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.utils.data import SequentialSampler
from transformers import Trainer

from incatalog.config import LossType
from incatalog.model.backbone import base_model, output_rows
from incatalog.model.head import RetrievalHead
from incatalog.packed.products import LaidOutLayers
from incatalog.training.checkpoints import SafeCheckpoints
from incatalog.training.losses import ScopedTargets, scoped_cross_entropy
from incatalog.training.retrieval_loss import ItemTargets, Retrieval, retrieval_cross_entropy

_HEAD = "retrieval_head"


def scoped_forward(
    model: nn.Module, loss: LossType, gamma: float, retrieval: Retrieval | None = None
) -> None:
    """Makes a causal language model's forward pass return the scoped loss; see `plain_forward`.

    Wrappers for several processes (DDP, FSDP, DeepSpeed) gather weights and arrange for gradients
    in the forward pass. In float32 on a CPU, copies of frozen linear layers compute them.
    """

    @cache
    def laid_out() -> LaidOutLayers:
        # Made when first used, as the model is not on its device before.
        return LaidOutLayers(base_model(model).modules(), differentiable=True)

    def forward(
        self: nn.Module,
        input_ids: Int64[Tensor, "batch length"],
        targets: ScopedTargets,
        num_labels: Tensor | None = None,
        items: ItemTargets | None = None,
        num_spans: Tensor | None = None,
    ) -> Float[Tensor, ""]:
        # Layers that are computed again for their gradients are so outside of this context.
        again = getattr(self, "is_gradient_checkpointing", False)
        mixed = torch.is_autocast_enabled("cpu")
        with nullcontext() if again or mixed else laid_out()():
            hidden = base_model(self)(input_ids=input_ids, use_cache=False).last_hidden_state
        total: Tensor = hidden.new_zeros((), dtype=torch.float32)
        if retrieval is None or not retrieval.only_head:
            weight, bias = output_rows(self)
            total = total + scoped_cross_entropy(
                hidden, weight, targets, bias=bias, loss=loss, gamma=gamma, num_labels=num_labels
            )
        if retrieval is not None and items is not None:
            head, negatives = retrieval.head, retrieval.negatives if self.training else 0
            total = total + retrieval.weight * retrieval_cross_entropy(
                hidden, head, items, negatives=negatives, num_spans=num_spans
            )
        return total

    if retrieval is not None:
        model.add_module(_HEAD, retrieval.head)
    setattr(model, "forward", MethodType(forward, model))  # noqa: B010


def plain_forward(model: nn.Module) -> None:
    """Gives a model its own forward pass back; a head is no part of it any more."""
    model._modules.pop(_HEAD, None)
    for name in ("forward", "_original_forward"):
        model.__dict__.pop(name, None)


class ScopedTrainer(SafeCheckpoints, Trainer):  # type: ignore[misc]
    """Trains on batches of `Collator`, in the order of the dataset."""

    def __init__(
        self,
        *,
        loss: LossType,
        gamma: float,
        retrieval: Retrieval | None = None,
        ranking: Callable[[], Mapping[str, float]] | None = None,
        **options: Any,
    ) -> None:
        """Takes the loss, and what measures how well the model ranks beside it."""
        # Before the model is placed on its device, so that the head goes with it.
        scoped_forward(options["model"], loss, gamma, retrieval)
        super().__init__(**options)
        self._head: RetrievalHead | None = None if retrieval is None else retrieval.head
        self._ranking = ranking
        # Losses are sums over the labels of all batches and processes of a step.
        self.loss_is_scaled_for_ga = True
        self.model_accepts_loss_kwargs = True
        self._cut = 0
        self._num_spans: Tensor | None = None

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        return SequentialSampler(self.train_dataset if train_dataset is None else train_dataset)

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor | None]:
        """Batches of one optimiser step, and their labels over all processes."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        if not batches:
            return batches, None
        names = ("num_labels", "num_spans", "cut")
        found = [torch.stack([batch[name].to(device) for name in names]) for batch in batches]
        counts = torch.stack(found).sum(0)
        if self.args.world_size > 1:
            counts = self.accelerator.gather(counts[None]).sum(0)
        self._num_spans = counts[1]
        self._cut += int(counts[2])
        return batches, counts[0]

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Mapping[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The scoped loss of one batch, as its share of the step's loss."""
        ids, targets, items = inputs["input_ids"], inputs["targets"], inputs.get("items")
        spans = None if num_items_in_batch is None else self._num_spans
        loss = model(ids, targets, num_labels=num_items_in_batch, items=items, num_spans=spans)
        if num_items_in_batch is not None:
            # Processes average their gradients, but their losses add up.
            loss = loss * self.accelerator.num_processes
        return (loss, None) if return_outputs else loss

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Any], *_args: Any, **_options: Any
    ) -> tuple[Tensor, None, None]:
        """The loss of a validation batch."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            return self.compute_loss(model, inputs).detach(), None, None

    def evaluation_loop(self, *args: Any, metric_key_prefix: str = "eval", **options: Any) -> Any:
        """The loss of the validation samples, and how well the model ranks."""
        found = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **options)
        if self._ranking is not None:
            for name, value in self._ranking().items():
                found.metrics[f"{metric_key_prefix}_{name}"] = value
        return found

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the history items cut since the last line of the log."""
        if "loss" in logs:
            logs["history_items_cut"] = self._cut
            self._cut = 0
        super().log(logs, start_time)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        super()._save(output_dir, state_dict)
        if self._head is not None:
            self._head.save(str(output_dir))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self._load_head(resume_from_checkpoint)

    def _load_best_model(self) -> None:
        super()._load_best_model()
        self._load_head(str(self.state.best_model_checkpoint))

    def _load_head(self, folder: str) -> None:
        if self._head is not None:
            self._head.load_state_dict(RetrievalHead.load(folder).state_dict())
