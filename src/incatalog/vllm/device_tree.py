"""A trie on a model's device: the arrays of the compiled loops as tensors."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from incatalog.trie.build import CLOSE
from incatalog.trie.trie import ItemTrie

_Index = Int64[Tensor, " n"]


class DeviceTree(NamedTuple):
    """What a step needs of a trie; see `TrieArrays` for the first five.

    Attributes:
        node_edges: First edge of each node; one more entry marks the end.
        edge_token: Token of each edge; the closing token where the span may close.
        bounds: Sorted positions that part the edges of a node.
        tail_start: First entry of what follows an edge without another choice.
        tail: These tokens.
        edge_node: The node that each edge leads to, -1 where it ends an item.
        gone_start: First entry, by the first position of those that end alike, of what else goes
            when one of them is named; one more entry marks the end.
        gone: These positions: all that end there, and the other spellings of their items.
        most_gone: Entries of one place at most.
        most_choices: Edges of a node at most.
        root: First and end of all positions, first and end of the tail before the first node, and
            that node.
        eoi: Token that closes a span.
    """

    node_edges: _Index
    edge_token: _Index
    bounds: _Index
    tail_start: _Index
    tail: _Index
    edge_node: _Index
    gone_start: _Index
    gone: _Index
    most_gone: int
    most_choices: int
    root: tuple[int, int, int, int, int]
    eoi: int

    @classmethod
    def of(cls, trie: ItemTrie, eoi: int, device: torch.device) -> DeviceTree:
        """Copies a trie."""
        arrays, found = trie.arrays, trie.edge_nodes
        leads = np.full(len(arrays.edge_token), -1, dtype=np.int64)
        leads[found.rank >= _MARK] = found.nodes
        start, gone = _gone(trie)
        closing = np.where(arrays.edge_token == CLOSE, eoi, arrays.edge_token)
        known = {"edge_token": closing, "edge_node": leads, "gone_start": start, "gone": gone}
        named = ("node_edges", "bounds", "tail_start", "tail")
        known |= {name: getattr(arrays, name) for name in named}
        # Entries more, so that there is something to read where nothing is asked for.
        tensors = {
            name: torch.from_numpy(np.append(array, [0, 0]).astype(np.int64)).to(device)
            for name, array in known.items()
        }
        root = trie.root()
        return cls(
            **tensors,
            most_gone=int(np.diff(start).max(initial=1)),
            most_choices=max(trie.most_choices, 1),
            root=(root.lo, root.hi, root.chain, root.chain_end, root.node),
            eoi=eoi,
        )


_MARK = 128  # of an edge that leads to a node, in `EdgeNodes.rank`


def _gone(trie: ItemTrie) -> tuple[np.ndarray, np.ndarray]:
    """What goes with an item that is named, by the first position of those that end alike."""
    # Two rows next to one another end alike where no node parts them.
    live = trie.num_live
    parted = np.zeros(live + 1, dtype=np.bool_)
    parted[[0, live]] = True
    parted[trie.arrays.bounds[trie.arrays.bounds <= live]] = True
    first = np.flatnonzero(parted)
    lists = [np.empty(0, np.int64)] * live
    if trie.spellings is None:
        sizes = np.zeros(live, dtype=np.int64)
        sizes[first[:-1]] = np.diff(first)
        return np.append(0, np.cumsum(sizes)), np.arange(live)
    for lo, hi in zip(first[:-1].tolist(), first[1:].tolist(), strict=True):
        lists[lo] = np.unique(trie.with_other_spellings(np.arange(lo, hi)))
    sizes = np.array([len(one) for one in lists], dtype=np.int64)
    return np.append(0, np.cumsum(sizes)), np.concatenate([*lists, np.empty(0, np.int64)])
