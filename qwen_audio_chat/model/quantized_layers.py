"""Layers with weights of 8 and 4 bits, for CPUs.

There are two formats, each stored as it is used and the same on every machine:

- 8 bits: int8 [rows, columns] with one bfloat16 scale per row, `scales` [rows].
- 4 bits: two values per byte (the lower half is the even column), uint8 [rows, columns / 2], and for each group of 32
  columns a scale and a zero point, `scales` [rows, columns / 32, 2]: weight = (value - 8) * scale + zero.

Decoding reads every weight once per token, so memory bandwidth limits it and fewer bits are faster; `kernels`
multiplies them directly. A prompt has many rows, so arithmetic limits it and a float copy is faster. The copy is kept
where there is memory for it (`dense_dtype`), and made for each prompt otherwise.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from . import kernels

GROUP_SIZE = 32  # columns that share a scale and a zero point at 4 bits
MAX_KERNEL_ROWS = 4  # with more rows of input, a matrix product of floats is faster than the kernels
SINGLE_THREAD_WEIGHTS = 2**22  # one thread multiplies a smaller matrix before a second thread has woken up
_COLUMN_MULTIPLE = {8: 16, 4: GROUP_SIZE}  # by bits
_KERNEL_THREADS = ThreadPoolExecutor(thread_name_prefix="multiply")  # kernels release Python's lock
_BLOCK_COLUMNS = 4 * GROUP_SIZE  # columns that the kernel for 4 bits multiplies at once


def quantize(weight: torch.Tensor, bits: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Round a float weight [rows, columns] to `bits`; returns the values and their scales as described above.

    Raises:
        ValueError: the number of columns isn't a multiple of 16 (8 bits) or 32 (4 bits).
    """
    weight = weight.float()
    rows, columns = weight.shape
    if columns % _COLUMN_MULTIPLE[bits]:
        raise ValueError(
            f"A weight of {columns} columns can't have {bits} bits: they don't divide by {_COLUMN_MULTIPLE[bits]}."
        )
    if bits == 8:
        scales = (weight.abs().amax(dim=-1) / 127).clamp(min=1e-12).bfloat16()
        return (weight / scales.float()[:, None]).round().clamp(-127, 127).to(torch.int8), scales
    groups = weight.view(rows, columns // GROUP_SIZE, GROUP_SIZE)
    low, high = groups.aminmax(dim=-1)
    scale = ((high - low) / 15).clamp(min=1e-12).bfloat16()
    zero = (low + 8 * scale.float()).bfloat16()
    values = ((groups - zero.float()[..., None]) / scale.float()[..., None] + 8).round().clamp(0, 15).to(torch.uint8)
    return _pack_pairs(values.view(rows, columns)), torch.stack((scale, zero), dim=-1)


def dequantize(values: torch.Tensor, scales: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The float weight [rows, columns] that `values` and `scales` encode."""
    if values.dtype == torch.int8:
        return (values.float() * scales.float()[:, None]).to(dtype)
    rows, groups, _ = scales.shape
    output = torch.empty(rows, groups, GROUP_SIZE, dtype=dtype if dtype == torch.bfloat16 else torch.float32)
    pairs = values.view(rows, groups, GROUP_SIZE // 2)
    _run_kernel(kernels.unpack_pairs, (), pairs, scales, output)
    return output.flatten(start_dim=1).to(dtype)


def multiply(values: torch.Tensor, scales: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
    """The product [rows] of a quantized weight with a float32 row [columns].

    Args:
        values: as `quantize` returns them.
        scales: as `QuantizedLinear.prepare` makes `kernel_scales` from them.
    """
    output = torch.empty(len(values))
    row = row.contiguous()
    if values.dtype == torch.int8:
        _run_kernel(kernels.multiply, (row,), values, scales, output)
    else:
        lanes = row[: len(row) // _BLOCK_COLUMNS * _BLOCK_COLUMNS].view(-1, 16, 8).transpose(1, 2).contiguous()
        _run_kernel(kernels.multiply_pairs, (row, lanes, row.view(-1, GROUP_SIZE).sum(1)), values, scales, output)
    return output


def _run_kernel(kernel: Callable, shared: Sequence[torch.Tensor], *by_row: torch.Tensor) -> None:
    """Call a kernel with `shared` and `by_row`; large arrays are divided by rows among all threads."""
    whole, divided = ([_as_numpy(tensor) for tensor in tensors] for tensors in (shared, by_row))
    rows = len(divided[0])
    threads = torch.get_num_threads() if divided[0].size >= SINGLE_THREAD_WEIGHTS else 1
    rows_each = -(-rows // threads)
    slices = [[array[start : start + rows_each] for array in divided] for start in range(0, rows, rows_each)]
    running = [_KERNEL_THREADS.submit(kernel, *whole, *arrays) for arrays in slices[1:]]
    for arrays in slices[:1]:  # on this thread; an empty array has no slice
        kernel(*whole, *arrays)
    for future in running:
        future.result()


def _as_numpy(tensor: torch.Tensor) -> np.ndarray:
    """The same memory as an array for a kernel, bfloat16 as uint16."""
    tensor = tensor.detach()
    return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _pack_pairs(values: torch.Tensor) -> torch.Tensor:
    return values[:, ::2] | values[:, 1::2] << 4


class QuantizedEmbedding(nn.Module):
    """Token embeddings of 8 or 4 bits; `forward` returns rows of type `dtype`."""

    def __init__(self, rows: int, columns: int, bits: int, dtype: torch.dtype):
        super().__init__()
        self.shape, self.bits, self.dtype = torch.Size((rows, columns)), bits, dtype
        self.weight, self.scales = _empty_parameters(rows, columns, bits)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        flat = input_ids.flatten()
        return dequantize(self.weight[flat], self.scales[flat], self.dtype).view(*input_ids.shape, -1)

    def to_float(self, dtype: torch.dtype) -> nn.Embedding:
        """The same embeddings with a float weight."""
        return nn.Embedding.from_pretrained(dequantize(self.weight, self.scales, dtype), freeze=False)


class QuantizedLinear(nn.Module):
    """A linear layer of 8 or 4 bits for inference on a CPU. Call `prepare` once its weights are loaded."""

    def __init__(self, rows: int, columns: int, bits: int, bias: bool, dtype: torch.dtype):
        super().__init__()
        self.shape, self.bits = torch.Size((rows, columns)), bits
        self.out_features, self.in_features = rows, columns
        self.weight, self.scales = _empty_parameters(rows, columns, bits)
        self.bias = nn.Parameter(torch.empty(rows, dtype=dtype), requires_grad=False) if bias else None
        self.kernel_scales: torch.Tensor | None = None
        self.dense: torch.Tensor | None = None

    def prepare(self, dense_dtype: torch.dtype | None = None) -> None:
        """Prepare the scales for the kernels, and a float copy for prompts if asked for.

        Args:
            dense_dtype: type of a copy, two to eight times as large as the weight, that is kept for inputs of many
                rows; None keeps none.
        """
        scales = self.scales.data
        self.kernel_scales = scales.float() if self.bits == 8 else scales.view(torch.uint16)
        if dense_dtype:
            self.dense = dequantize(self.weight.data, scales, dense_dtype)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        rows = hidden.reshape(-1, self.in_features)
        if len(rows) <= MAX_KERNEL_ROWS:
            assert self.kernel_scales is not None, "call `prepare` first"
            output = torch.stack([multiply(self.weight, self.kernel_scales, row) for row in rows.detach().float()])
        elif self.dense is not None:
            output = F.linear(rows.to(self.dense.dtype), self.dense)
        else:
            output = F.linear(rows, dequantize(self.weight, self.scales, rows.dtype))
        output = output.to(hidden.dtype).view(*hidden.shape[:-1], self.out_features)
        return output if self.bias is None else output + self.bias

    @property
    def nbytes(self) -> int:
        """Bytes of values and scales, which a product with one row reads."""
        return self.shape.numel() * self.bits // 8 + self.scales.nbytes

    def to_float(self, dtype: torch.dtype) -> nn.Linear:
        """The same layer with a float weight."""
        with torch.device("meta"):
            linear = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None)
        linear.weight = nn.Parameter(dequantize(self.weight, self.scales, dtype))
        if self.bias is not None:
            linear.bias = nn.Parameter(self.bias.to(dtype))
        return linear


def _empty_parameters(rows: int, columns: int, bits: int) -> tuple[nn.Parameter, nn.Parameter]:
    """Uninitialized values and scales."""
    shapes = {8: ((rows, columns), (rows,)), 4: ((rows, columns // 2), (rows, columns // GROUP_SIZE, 2))}
    values, scales = shapes[bits]
    return (
        nn.Parameter(torch.empty(values, dtype=torch.int8 if bits == 8 else torch.uint8), requires_grad=False),
        nn.Parameter(torch.empty(scales, dtype=torch.bfloat16), requires_grad=False),
    )
