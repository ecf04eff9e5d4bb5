"""TRL's GRPO trainer for rewrites, with checkpoints that a killed training goes on from."""

from __future__ import annotations

from typing import Any

from trl import GRPOTrainer

from incatalog.training.checkpoints import SafeCheckpoints

_REFERENCE = "ref"


class RewriteTrainer(SafeCheckpoints, GRPOTrainer):  # type: ignore[misc]
    """GRPO on plain text, as TRL does it."""

    def __init__(self, **options: Any) -> None:
        """Takes the options of TRL's trainer."""
        super().__init__(**options)
        if _REFERENCE in getattr(self.model, "peft_config", {}):
            # TRL's copy of the adapter as it starts is the model without one, as ours starts at
            # zero; and transformers restores such copies alone, without the adapter in training.
            self.model.delete_adapter(_REFERENCE)
