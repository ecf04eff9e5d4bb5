"""The samples of a training and of its validations, each a function of its number."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from jaxtyping import Int64
from torch.utils.data import Dataset

from incatalog.training.draws import ORDER, SHUFFLE, VALIDATION
from incatalog.training.samples import Sample, SampleSource

# Batches whose samples are put next to others of like length; more would train on shorter samples
# for long stretches without saving much padding.
_POOL = 16


class SftDataset(Dataset[Sample]):
    """All samples of a training, in the order they are trained on.

    Epochs follow one another, each in an order of its own. Within a pool of some batches, samples
    of like length stand together, and the batches are shuffled; so a batch has little padding, and
    any sample still depends only on its index.
    """

    def __init__(self, source: SampleSource, num_samples: int, batch_size: int, seed: int) -> None:
        # A batch is an optimiser step's, over all processes.
        self._source, self._seed = source, seed
        self._num_samples, self._batch_size = num_samples, batch_size
        self._draws = lru_cache(maxsize=8)(source.draws)
        self._order = lru_cache(maxsize=8)(self._epoch_order)
        self._pool = lru_cache(maxsize=2)(self._pool_order)

    def __len__(self) -> int:
        return self._num_samples

    def __getitem__(self, index: int) -> Sample:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Sample]:
        """Several samples at once, so that the teacher is asked once."""
        size = _POOL * self._batch_size
        wanted = [self._pool(index // size)[index % size] for index in indices]
        return self._source.train_samples(wanted, [self._draws(epoch) for epoch, _ in wanted])

    def _epoch_order(self, epoch: int) -> Int64[np.ndarray, " samples"]:
        rng = np.random.default_rng([self._seed, ORDER, epoch])
        return rng.permutation(self._source.per_epoch)

    def _pool_order(self, pool: int) -> list[tuple[int, int]]:
        """Epoch and number of each sample of a pool, in order."""
        size, batch = _POOL * self._batch_size, self._batch_size
        places = np.arange(pool * size, min((pool + 1) * size, self._num_samples))
        epochs, within = np.divmod(places, self._source.per_epoch)
        numbers, lengths = np.empty_like(places), np.empty_like(places)
        for epoch in np.unique(epochs).tolist():
            here = epochs == epoch
            numbers[here] = self._order(epoch)[within[here]]
            lengths[here] = self._source.estimated_lengths(self._draws(epoch))[numbers[here]]
        by_length = np.argsort(lengths, kind="stable")
        whole = len(places) // batch * batch
        batches = by_length[:whole].reshape(-1, batch)
        rng = np.random.default_rng([self._seed, SHUFFLE, pool])
        order = np.concatenate([rng.permutation(batches).reshape(-1), by_length[whole:]])
        return list(zip(epochs[order].tolist(), numbers[order].tolist(), strict=True))


class ValidationDataset(Dataset[Sample]):
    """One sample for each of some users, the same in every validation."""

    def __init__(self, source: SampleSource, num_users: int, seed: int) -> None:
        self._source = source
        rng = np.random.default_rng([seed, VALIDATION])
        self._users = np.sort(rng.permutation(source.users)[:num_users]).tolist()

    def __len__(self) -> int:
        return len(self._users)

    def __getitem__(self, index: int) -> Sample:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Sample]:
        """Several samples at once, so that the teacher is asked once."""
        return self._source.validation_samples([self._users[index] for index in indices])
