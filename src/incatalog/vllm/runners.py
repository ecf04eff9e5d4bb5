"""The entry point `vllm.logits_processors`: each runner of vLLM finds the class it knows."""

from __future__ import annotations

from typing import Any

from vllm.v1.sample.logits_processor.interface import LogitsProcessor
from vllm.v1.worker.gpu.sample.logits_processor.interface import LogitsProcessor as DeviceProcessor

from incatalog.vllm.logits_processor import ItemLogitsProcessor
from incatalog.vllm.plugin import require_door


class ItemProcessor(LogitsProcessor, DeviceProcessor):  # type: ignore[misc]
    """Holds answers to the items, in either runner.

    One group of entry points serves both, and each runner takes all that it finds there for its
    own. So this class is of both kinds, and what is made of it is of the one that asks: V1 hands
    over a device and whether memory is pinned, V2 the state of its requests.
    """

    def __new__(cls, vllm_config: Any, *rest: Any) -> Any:
        """The processor of the runner that asks."""
        if len(rest) == 2:
            return ItemLogitsProcessor(vllm_config, *rest)
        from incatalog.vllm.device_processor import DeviceItemProcessor

        return DeviceItemProcessor(vllm_config, *rest)

    @classmethod
    def validate_params(cls, sampling_params: Any) -> None:
        """Refuses a request where the plugin was left out."""
        require_door(sampling_params)
