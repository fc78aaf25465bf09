"""The key-value cache of one conversation."""

import torch
from transformers.cache_utils import Cache, DynamicLayer


class PreallocatedLayer(DynamicLayer):
    """Keys and values of one layer in buffers that double when full: no copy per token, cropping is free."""

    buffers: list[torch.Tensor]  # keys and values, [1, heads, capacity, head size]

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args, **kwargs):
        """Append keys and values, [1, heads, positions, head size]; returns all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.buffers = [self._grown(x, 0, key_states.shape[-2]) for x in (key_states, value_states)]
        length = self.get_seq_length()
        self.extend(key_states.shape[-2])
        for buffer, states in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[..., length : length + states.shape[-2], :] = states
        return self.keys, self.values

    def extend(self, count: int) -> None:
        """Make room for `count` more positions; the caller writes their keys and values into `buffers`."""
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
        """Bytes of the buffers, unused room included."""
        return sum(buffer.nbytes for buffer in self.buffers) if self.is_initialized else 0


class KeyValueCache(Cache):
    """The key-value cache of one conversation (one row).

    Args:
        ntk_alpha: factor on the rotary base that its keys were rotated with, for a model with dynamic NTK.
    """

    def __init__(self, ntk_alpha: torch.Tensor | None = None):
        super().__init__(layer_class_to_replicate=PreallocatedLayer)
        self.layers: list[PreallocatedLayer]  # pyright: ignore[reportIncompatibleVariableOverride]
        self.ntk_alpha = ntk_alpha

    def keep(self, length: int) -> None:
        """Forget everything after the first `length` positions."""
        for layer in self.layers:
            if layer.get_seq_length() > length:
                layer.keys, layer.values = (buffer[..., :length, :] for buffer in layer.buffers)

    def copy_from(self, other: "KeyValueCache", shared: int) -> None:
        """Become a copy of `other`; the first `shared` positions are equal already, unless this cache is empty."""
        self.keep(shared)
        start = self.get_seq_length()
        self.ntk_alpha = other.ntk_alpha
        for number, layer in enumerate(other.layers):
            keys, values = (buffer[..., start : layer.get_seq_length(), :] for buffer in layer.buffers)
            self.update(keys, values, number)

    @property
    def nbytes(self) -> int:
        """Bytes of all layers' buffers."""
        return sum(layer.nbytes for layer in self.layers)
