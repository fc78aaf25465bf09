"""Weights of 8 and 4 bits for CPUs.

Two formats, both plain in the file and equal on every machine:

- 8 bits: int8 [rows, columns] with one bfloat16 scale per row, `scales` [rows].
- 4 bits: two values per byte (the lower half is the even column), uint8 [rows, columns / 2], and for each group of 32
  columns a scale and a zero point, `scales` [rows, columns / 32, 2]: weight = (value - 8) * scale + zero.

Decoding reads every weight once per token, so that its speed is the memory's: few bits win. 8 bits are multiplied as
they are (`kernels.multiply`), 4 bits by PyTorch's packed kernel. A prompt has many rows, where arithmetic counts: there
a float copy is faster, kept where the memory for one is there (`keep_dense`) or else made each time.
"""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from . import kernels

GROUP = 32
KERNEL_ROWS = 4  # rows of input up to which the kernels for few bits beat a matrix product of floats
SMALL = 2**22  # weights of a matrix that one thread multiplies sooner than a second one wakes
_COLUMNS = {8: 16, 4: GROUP}  # what columns must divide by
_POOL = ThreadPoolExecutor(thread_name_prefix="multiply")  # the kernel leaves Python free
_ROW_BLOCK = 32  # the 4-bit kernel takes weights of a multiple of this many rows


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
    scale, zero = scales.float().unbind(dim=-1)
    groups = _unpair(values).view(*scale.shape, GROUP).float()
    return ((groups - 8) * scale[..., None] + zero[..., None]).flatten(start_dim=-2).to(dtype)


def _pair(values: torch.Tensor) -> torch.Tensor:
    return values[:, ::2] | values[:, 1::2] << 4


def _unpair(pairs: torch.Tensor) -> torch.Tensor:
    return torch.stack((pairs & 15, pairs >> 4), dim=-1).flatten(start_dim=-2)


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
    """A linear layer of 8 or 4 bits for inference on a CPU. Call `pack` once its weights are there."""

    def __init__(self, rows: int, columns: int, bits: int, bias: bool, dtype: torch.dtype):
        super().__init__()
        self.shape, self.bits = torch.Size((rows, columns)), bits
        self.out_features, self.in_features = rows, columns
        self.weight, self.scales = _empty_parameters(rows, columns, bits)
        self.bias = nn.Parameter(torch.empty(rows, dtype=dtype), requires_grad=False) if bias else None
        self.packed = self.packed_scales = self.dense = None

    def pack(self, keep_dense: bool = False, keep_plain: bool = False) -> None:
        """Bring the weight into the form that this CPU's kernels read.

        Args:
            keep_dense: keep a bfloat16 copy for inputs of many rows, two to four times as large.
            keep_plain: keep plain values of 4 bits, too; needed where another module shares them.
        """
        values, scales = self.weight.data, self.scales.data
        if keep_dense:
            self.dense = dequantize(values, scales, torch.bfloat16)
        if self.bits == 8:
            self.packed_scales = scales.float()
            return
        missing = -len(values) % _ROW_BLOCK
        unpaired = F.pad(_unpair(values), (0, 0, 0, missing)).int()
        self.packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(unpaired, 1)
        self.packed_scales = F.pad(scales, (0, 0, 0, 0, 0, missing)).transpose(0, 1).contiguous()
        if not keep_plain:
            self.weight = None

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        rows = hidden.reshape(-1, self.in_features)
        if len(rows) > KERNEL_ROWS and self.dense is not None:
            output = F.linear(rows.bfloat16(), self.dense)
        elif self.bits == 4:
            rows = rows.bfloat16().contiguous()
            output = torch.ops.aten._weight_int4pack_mm_for_cpu(rows, self.packed, GROUP, self.packed_scales)
            output = output[:, : self.out_features]
        elif len(rows) > KERNEL_ROWS:
            output = F.linear(rows, dequantize(self.weight, self.scales, rows.dtype))
        else:
            output = torch.stack([self._multiply(row) for row in rows.detach().float()])
        output = output.to(hidden.dtype).view(*hidden.shape[:-1], self.out_features)
        return output if self.bias is None else output + self.bias

    def _multiply(self, row: torch.Tensor) -> torch.Tensor:
        output = torch.empty(self.out_features)
        arrays = [x.detach().numpy() for x in (self.weight, self.packed_scales, output)]
        parts = torch.get_num_threads() if self.shape.numel() >= SMALL else 1
        each = -(-self.out_features // parts)
        pieces = [[x[start : start + each] for x in arrays] for start in range(0, self.out_features, each)]
        multiply = partial(_multiply_piece, row.contiguous().numpy())
        list(_POOL.map(multiply, pieces) if parts > 1 else map(multiply, pieces))
        return output

    @property
    def nbytes(self) -> int:
        """Bytes of values and scales: what a product with one row has to read."""
        return self.shape.numel() * self.bits // 8 + self.scales.nbytes

    def plain_values(self) -> torch.Tensor:
        """The values as in the file; once packed, they are read back from the kernel's own layout."""
        if self.weight is not None:
            return self.weight.data
        units = torch.zeros_like(self.packed_scales)
        units[..., 0] = 1
        each = torch.eye(self.in_features, dtype=torch.bfloat16)
        values = torch.ops.aten._weight_int4pack_mm_for_cpu(each, self.packed, GROUP, units)[:, : self.out_features]
        return _pair((values.T + 8).to(torch.uint8))

    def to_float(self, dtype: torch.dtype) -> nn.Linear:
        """The same layer with a float weight."""
        with torch.device("meta"):
            linear = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None)
        linear.weight = nn.Parameter(dequantize(self.plain_values(), self.scales, dtype))
        if self.bias is not None:
            linear.bias = nn.Parameter(self.bias.to(dtype))
        return linear

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "weight"] = self.plain_values()


def _multiply_piece(row, piece) -> None:
    weight, scales, output = piece
    kernels.multiply(weight, scales, row, output)


def _empty_parameters(rows: int, columns: int, bits: int) -> tuple[nn.Parameter, nn.Parameter]:
    """Room for values and scales."""
    shapes = {8: ((rows, columns), (rows,)), 4: ((rows, columns // 2), (rows, columns // GROUP, 2))}
    values, scales = shapes[bits]
    return (
        nn.Parameter(torch.empty(values, dtype=torch.int8 if bits == 8 else torch.uint8), requires_grad=False),
        nn.Parameter(torch.empty(scales, dtype=torch.bfloat16), requires_grad=False),
    )
