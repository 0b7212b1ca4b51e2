"""The share of every batch that one of several processes reads."""

from typing import Any

import grain


class Share(grain.MapDataset):  # type: ignore[misc]  # its package has no types
    """Of every `batch_size` elements of a data set the index-th of `count` equal runs of neighbours.

    Whatever the count, the shares side by side are then the same batch in the same order, and noise sampled by row
    meets the same clips.
    """

    def __init__(self, elements: grain.MapDataset, batch_size: int, index: int, count: int):
        super().__init__(elements)
        self._elements, self._batch_size, self._rows = elements, batch_size, batch_size // count
        self._first = index * self._rows

    def __len__(self) -> int:
        return len(self._elements) // self._batch_size * self._rows

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self.slice(index)
        batch, row = divmod(index, self._rows)
        return self._elements[batch * self._batch_size + self._first + row]
