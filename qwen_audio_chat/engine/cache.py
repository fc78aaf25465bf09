"""The key-value cache of one conversation, preallocated, so that a token costs no copy and cropping is free."""

import torch
from transformers.cache_utils import Cache, DynamicLayer


class PreallocatedLayer(DynamicLayer):
    """Keys and values of one layer in buffers that double when full: no copy per token, cropping is free."""

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args, **kwargs):
        """Append keys and values, [1, heads, positions, head size], and return all that are held."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.buffers = [self._grown(x, 0, key_states.shape[-2]) for x in (key_states, value_states)]
        length = self.get_seq_length()
        self.extend(key_states.shape[-2])
        for held, states in zip((self.keys, self.values), (key_states, value_states), strict=True):
            held[..., length:, :] = states
        return self.keys, self.values

    def extend(self, count: int) -> None:
        """Hold `count` more positions, whose keys and values the caller writes into `buffers`."""
        length = self.get_seq_length()
        if length + count > self.buffers[0].shape[-2]:
            self.buffers = [self._grown(x, length, length + count) for x in self.buffers]
        self.keys, self.values = (buffer[..., : length + count, :] for buffer in self.buffers)

    @staticmethod
    def _grown(states: torch.Tensor, keep: int, needed: int) -> torch.Tensor:
        capacity = max(256, 2 ** (needed - 1).bit_length())
        buffer = states.new_empty(*states.shape[:-2], capacity, states.shape[-1])
        buffer[..., :keep, :] = states[..., :keep, :]
        return buffer

    @property
    def nbytes(self) -> int:
        """Bytes of the buffers, room for more positions included."""
        return sum(buffer.nbytes for buffer in self.buffers) if self.is_initialized else 0


class KeyValueCache(Cache):
    """The key-value cache of one conversation (one row)."""

    def __init__(self):
        super().__init__(layer_class_to_replicate=PreallocatedLayer)

    def keep(self, length: int) -> None:
        """Forget everything after the first `length` positions."""
        if (surplus := self.get_seq_length() - length) > 0:
            self.crop(-surplus)

    def follow(self, other: "KeyValueCache", shared: int) -> None:
        """Hold what `other` holds, of which the first `shared` positions are here already, unless nothing is."""
        self.keep(shared)
        start = self.get_seq_length()
        self.ntk_alpha = getattr(other, "ntk_alpha", None)
        for number, layer in enumerate(other.layers):
            self.update(layer.keys[..., start:, :], layer.values[..., start:, :], number)

    @property
    def nbytes(self) -> int:
        """Bytes of all layers' buffers."""
        return sum(layer.nbytes for layer in self.layers)
