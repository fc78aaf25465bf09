"""Weights of 8 and 4 bits for CPUs.

Two formats, both plain in the file and equal on every machine:

- 8 bits: int8 [rows, columns] with one bfloat16 scale per row, `scales` [rows].
- 4 bits: two values per byte (the lower half is the even column), uint8 [rows, columns / 2], and for each group of 32
  columns a scale and a zero point, `scales` [rows, columns / 32, 2]: weight = (value - 8) * scale + zero.

Decoding reads every weight once per token, so that its speed is the memory's: few bits win, multiplied as they are by
`kernels`. A prompt has many rows, where arithmetic counts: there a float copy is faster, kept where the memory for one
is there (`dense_dtype`) or else made each time.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from . import kernels

GROUP = 32
KERNEL_ROWS = 4  # rows of input up to which the kernels for few bits beat a matrix product of floats
SMALL = 2**22  # weights of a matrix that one thread multiplies sooner than a second one wakes
_COLUMNS = {8: 16, 4: GROUP}  # what columns must divide by
_POOL = ThreadPoolExecutor(thread_name_prefix="multiply")  # the kernel leaves Python free
_BLOCK = 4 * GROUP  # columns that the kernel for 4 bits takes at once


def quantize(weight: torch.Tensor, bits: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Round a float weight [rows, columns] to `bits`; returns the values and their scales as described above.

    Raises:
        ValueError: the columns don't divide into groups.
    """
    weight = weight.float()
    rows, columns = weight.shape
    if columns % _COLUMNS[bits]:
        raise ValueError(
            f"A weight of {columns} columns can't have {bits} bits: they don't divide by {_COLUMNS[bits]}."
        )
    if bits == 8:
        scales = (weight.abs().amax(dim=-1) / 127).clamp(min=1e-12).bfloat16()
        return (weight / scales.float()[:, None]).round().clamp(-127, 127).to(torch.int8), scales
    groups = weight.view(rows, columns // GROUP, GROUP)
    low, high = groups.aminmax(dim=-1)
    scale = ((high - low) / 15).clamp(min=1e-12).bfloat16()
    zero = (low + 8 * scale.float()).bfloat16()
    values = ((groups - zero.float()[..., None]) / scale.float()[..., None] + 8).round().clamp(0, 15).to(torch.uint8)
    return _pair(values.view(rows, columns)), torch.stack((scale, zero), dim=-1)


def dequantize(values: torch.Tensor, scales: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The weight [rows, columns] that `values` and `scales` stand for."""
    if values.dtype == torch.int8:
        return (values.float() * scales.float()[:, None]).to(dtype)
    rows, groups, _ = scales.shape
    output = torch.empty(rows, groups, GROUP, dtype=dtype if dtype == torch.bfloat16 else torch.float32)
    pairs = values.view(rows, groups, GROUP // 2)
    _in_parts(kernels.unpack_pairs, (), pairs, scales, output)
    return output.flatten(start_dim=1).to(dtype)


def multiply(values: torch.Tensor, scales: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
    """The weight that `values` and `scales` stand for by a float32 row [columns]; scales as `kernel_scales`."""
    output = torch.empty(len(values))
    row = row.contiguous()
    if values.dtype == torch.int8:
        _in_parts(kernels.multiply, (row,), values, scales, output)
    else:
        lanes = row[: len(row) // _BLOCK * _BLOCK].view(-1, 16, 8).transpose(1, 2).contiguous()
        _in_parts(kernels.multiply_pairs, (row, lanes, row.view(-1, GROUP).sum(1)), values, scales, output)
    return output


def _in_parts(kernel, shared: Sequence[torch.Tensor], *arrays: torch.Tensor) -> None:
    """Call a kernel with `shared` and a slice of the rows of `arrays`, for large ones on all threads."""
    shared, arrays = ([_as_numpy(tensor) for tensor in tensors] for tensors in (shared, arrays))
    parts = torch.get_num_threads() if arrays[0].size >= SMALL else 1
    each = -(-len(arrays[0]) // parts)
    pieces = [[array[start : start + each] for array in arrays] for start in range(0, len(arrays[0]), each)]
    others = [_POOL.submit(kernel, *shared, *piece) for piece in pieces[1:]]
    for piece in pieces[:1]:
        kernel(*shared, *piece)
    for other in others:
        other.result()


def _as_numpy(tensor: torch.Tensor) -> np.ndarray:
    """The same memory for a kernel, bfloat16 as uint16."""
    tensor = tensor.detach()
    return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _pair(values: torch.Tensor) -> torch.Tensor:
    return values[:, ::2] | values[:, 1::2] << 4


class QuantizedEmbedding(nn.Module):
    """Token embeddings of 8 or 4 bits; looked-up rows come in `dtype`."""

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
    """A linear layer of 8 or 4 bits for inference on a CPU. Call `prepare` once its weights are there."""

    def __init__(self, rows: int, columns: int, bits: int, bias: bool, dtype: torch.dtype):
        super().__init__()
        self.shape, self.bits = torch.Size((rows, columns)), bits
        self.out_features, self.in_features = rows, columns
        self.weight, self.scales = _empty_parameters(rows, columns, bits)
        self.bias = nn.Parameter(torch.empty(rows, dtype=dtype), requires_grad=False) if bias else None
        self.kernel_scales = self.dense = None

    def prepare(self, dense_dtype: torch.dtype | None = None) -> None:
        """Make ready to multiply.

        Args:
            dense_dtype: keep a copy of this type for inputs of many rows, two to eight times as large.
        """
        scales = self.scales.data
        self.kernel_scales = scales.float() if self.bits == 8 else scales.view(torch.uint16)
        if dense_dtype:
            self.dense = dequantize(self.weight.data, scales, dense_dtype)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        rows = hidden.reshape(-1, self.in_features)
        if len(rows) <= KERNEL_ROWS:
            output = torch.stack([multiply(self.weight, self.kernel_scales, row) for row in rows.detach().float()])
        elif self.dense is not None:
            output = F.linear(rows.to(self.dense.dtype), self.dense)
        else:
            output = F.linear(rows, dequantize(self.weight, self.scales, rows.dtype))
        output = output.to(hidden.dtype).view(*hidden.shape[:-1], self.out_features)
        return output if self.bias is None else output + self.bias

    @property
    def nbytes(self) -> int:
        """Bytes of values and scales: what a product with one row has to read."""
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
    """Room for values and scales."""
    shapes = {8: ((rows, columns), (rows,)), 4: ((rows, columns // 2), (rows, columns // GROUP, 2))}
    values, scales = shapes[bits]
    return (
        nn.Parameter(torch.empty(values, dtype=torch.int8 if bits == 8 else torch.uint8), requires_grad=False),
        nn.Parameter(torch.empty(scales, dtype=torch.bfloat16), requires_grad=False),
    )
