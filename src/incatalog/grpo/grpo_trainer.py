"""TRL's GRPO trainer on answers of the engine, with the log-probabilities of the sampled policy.

TRL (1.16) does what is not about items: groups and advantages, clipping, divergence, the variants
of the loss, logging. Two of its seams are used: `rollout_func` generates, and the method that
computes log-probabilities per token is replaced.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from jaxtyping import Float, Int64
from torch import Tensor, nn
from trl import GRPOConfig, GRPOTrainer

from incatalog.grpo.policy import GAP, ChoiceBatch, padded, policy_forward
from incatalog.grpo.rewards import Batch
from incatalog.grpo.rollouts import Rollout, Sampler, answer_seeds
from incatalog.model.head import RetrievalHead
from incatalog.training.checkpoints import SafeCheckpoints
from incatalog.training.validation import Prompt

Reward = Callable[[Batch], list[float]]
Validation = Callable[[], Mapping[str, float]]


class ItemGrpoTrainer(SafeCheckpoints, GRPOTrainer):  # type: ignore[misc]
    """GRPO (arXiv 2402.03300) on the choices among items.

    ``beta`` weighs the divergence from ``reference``, a copy of the model as it starts; None stands
    for the model with its adapter switched off. The `beta` of TRL's settings has to be 0.
    """

    def __init__(
        self,
        model: nn.Module,
        args: GRPOConfig,
        *,
        beta: float,
        reference: nn.Module | None,
        prompts: Sequence[Prompt],
        sampler: Sampler,
        rewards: Mapping[str, Reward],
        wanted: int,
        head: RetrievalHead | None,
        validation: Validation | None,
        compared: bool,  # Log GAP: the log-probabilities of the sampler are the policy's
        seed: int,
        **options: Any,
    ) -> None:
        self._prompts, self._sampler, self._wanted = prompts, sampler, wanted
        self._validation, self._seed = validation, seed
        self._compared = compared and args.temperature == 1
        # All answers of the last generation, and those of the batch at hand.
        self._rollouts: list[Rollout] = []
        self._scored: list[Rollout] = []
        functions = [self._reward_function(name, reward) for name, reward in rewards.items()]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="You are using 'rollout_func'")
            super().__init__(
                model=model,
                args=args,
                reward_funcs=functions,
                train_dataset=Dataset.from_dict({"prompt": [*map(str, range(len(prompts)))]}),
                eval_dataset=Dataset.from_dict({"prompt": ["0"]}),
                rollout_func=lambda prompts, trainer: trainer.answer(prompts),
                **options,
            )
        # A reference of TRL's making would be loaded by name, without what was merged into it.
        self.beta = beta
        policy_forward(model, head=head, temperature=args.temperature)
        if reference is not None:
            policy_forward(reference, head=head, temperature=args.temperature)
            self.ref_model = self.accelerator.prepare_model(reference, evaluation_mode=True)

    def answer(self, prompts: Sequence[str]) -> dict[str, Any]:
        """Lets the policy answer prompts, as TRL's ``rollout_func`` returns it."""
        asked = [self._prompts[int(number)] for number in prompts]
        first = self.accelerator.process_index * len(asked)
        seeds = answer_seeds(self._seed, self.state.global_step, first, len(asked))
        places = [(first + number) % self.num_generations for number in range(len(asked))]
        self._rollouts = self._scored = self._sampler(asked, seeds, places)
        masks = [np.zeros(len(rollout.token_ids), dtype=np.int64) for rollout in self._rollouts]
        for mask, rollout in zip(masks, self._rollouts, strict=True):
            mask[rollout.choices.place] = 1
        return {
            "prompt_ids": [list(rollout.prompt_ids) for rollout in self._rollouts],
            "completion_ids": [list(rollout.token_ids) for rollout in self._rollouts],
            "logprobs": None,
            "env_mask": [mask.tolist() for mask in masks],
            "rollout": list(self._rollouts),
        }

    def evaluate(
        self, *_args: Any, metric_key_prefix: str = "eval", **_options: Any
    ) -> dict[str, float]:
        """Scores the policy on held-out items, by the metric the best checkpoint is chosen by."""
        assert self._validation is not None
        self.model.eval()
        metrics = {f"{metric_key_prefix}_{name}": v for name, v in self._validation().items()}
        self.log(dict(metrics))
        told = self.callback_handler.on_evaluate
        self.control: Any = told(self.args, self.state, self.control, metrics)
        self.model.train()
        return metrics

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = super()._generate_and_score_completions(inputs)
        # Shuffled and split along with the rest.
        batch["rollout"] = torch.arange(len(self._rollouts))
        return batch

    def _compute_loss(self, model: nn.Module, inputs: dict[str, Any]) -> Tensor:
        self._scored = [self._rollouts[number] for number in inputs["rollout"].tolist()]
        loss: Tensor = super()._compute_loss(model, inputs)
        return loss

    def _get_per_token_logps_and_entropies(
        self,
        model: nn.Module,
        input_ids: Int64[Tensor, "batch length"],
        attention_mask: Int64[Tensor, "batch length"],
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        **options: Any,
    ) -> tuple[Float[Tensor, "batch kept"], Float[Tensor, "batch kept"] | None, None]:
        """Log-probabilities of the answers' choices, and 0 at all tokens that were forced."""
        del attention_mask, options
        logprobs, entropies = [], []
        size, device = batch_size or len(input_ids), input_ids.device
        for first in range(0, len(input_ids), size):
            part = self._scored[first : first + size]
            rows = [(*rollout.prompt_ids, *rollout.token_ids) for rollout in part]
            ids = padded(rows, self._tokenizer.pad_token_id, device)
            starts = [len(rollout.prompt_ids) for rollout in part]
            choices = ChoiceBatch.of([r.choices for r in part], starts, ids.shape[1]).to(device)
            with self.accelerator.autocast():
                logprob, entropy = model(input_ids=ids, choices=choices)
            at = (choices.answer, choices.place)
            forced = torch.zeros(len(rows), logits_to_keep, device=device)
            logprobs.append(forced.index_put(at, logprob))
            entropies.append(forced.index_put(at, entropy))
        found = torch.cat(logprobs)
        # Compared with the engine as long as the policy is still the one that answered.
        fresh = self._step % (self.args.steps_per_generation * self.num_iterations) == 0
        if found.requires_grad and fresh and self._compared:
            engine = torch.tensor([r.logprob for r in self._scored], dtype=torch.float64)
            gap = (found.detach().double().sum(1).cpu() - engine).abs().max()
            self._metrics["train"][GAP].append(gap.item())
        return found, torch.cat(entropies) if compute_entropy else None, None

    def _reward_function(self, name: str, reward: Reward) -> Callable[..., list[float]]:
        """A reward in the form TRL asks for."""

        def rewarded(prompts: Sequence[str], rollout: Sequence[Rollout], **_: Any) -> list[float]:
            asked = [self._prompts[int(number)] for number in prompts]
            items = [answer.items for answer in rollout]
            logprobs = [answer.logprob for answer in rollout]
            relevant, histories = [q.relevant for q in asked], [q.history for q in asked]
            group = self.num_generations
            return reward(Batch(items, logprobs, relevant, histories, group, self._wanted))

        rewarded.__name__ = name
        return rewarded
