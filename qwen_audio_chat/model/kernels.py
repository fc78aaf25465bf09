"""Loops over 8-bit weights, compiled by Numba for the processor at hand: a matrix by a row, and one whole decode step.

PyTorch has no kernel that reads small 8-bit matrices at the memory's speed for one row, and between kernels it spends
longer than in them. Here floats stay floats: activations are never rounded. No C++ compiler is needed; what was
compiled once is kept on disk.
"""

import math

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

_AHEAD = 4096  # bytes; a row is too short for the processor to foresee the next ones by itself
_LINE = 64
_compiled = njit(nogil=True, fastmath=True, error_model="numpy", cache=True)


@intrinsic
def _prefetch(context, array, row, offset):
    """Ask for the cache line `offset` bytes after the start of a row, which may lie beyond the array."""

    def generate(context, builder, signature, args):
        matrix = context.make_array(signature.args[0])(context, builder, args[0])
        byte, integer = ir.IntType(8).as_pointer(), ir.IntType(32)
        distance = builder.add(builder.mul(args[1], builder.extract_value(matrix.strides, 0)), args[2])
        address = builder.gep(builder.bitcast(matrix.data, byte), [distance])
        kind = ir.FunctionType(ir.VoidType(), [byte, integer, integer, integer])
        function = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        builder.call(function, [address, integer(0), integer(3), integer(1)])  # to read, into all caches, data
        return context.get_dummy_value()

    return types.void(array, row, offset), generate


@intrinsic
def _float(context, held):
    """What a cache holds as float32: float32 itself, or a bfloat16 as uint16."""
    if held == types.float32:
        return types.float32(held), lambda context, builder, signature, args: args[0]

    def generate(context, builder, signature, args):
        integer = ir.IntType(32)
        return builder.bitcast(builder.shl(builder.zext(args[0], integer), integer(16)), ir.FloatType())

    return types.float32(types.uint16), generate


@intrinsic
def _as_float(context, bits):
    """The float32 that an int32 holds."""

    def generate(context, builder, signature, args):
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.int32), generate


@intrinsic
def _held(context, value, cache):
    """A float32 as a cache holds it: as it is, or as the nearest bfloat16 (even at a tie)."""
    if cache.dtype == types.float32:
        return types.float32(value, cache), lambda context, builder, signature, args: args[0]

    def generate(context, builder, signature, args):
        integer = ir.IntType(32)
        bits = builder.bitcast(args[0], integer)
        odd = builder.and_(builder.lshr(bits, integer(16)), integer(1))
        rounded = builder.add(bits, builder.add(odd, integer(0x7FFF)))
        return builder.trunc(builder.lshr(rounded, integer(16)), ir.IntType(16))

    return types.uint16(value, cache), generate


@_compiled
def multiply(weight, scales, row, output):
    """output[rows] = (int8 weight [rows, columns] @ float32 row [columns]) * float32 scales[rows]."""
    columns = weight.shape[1]
    for r in range(weight.shape[0]):
        for offset in range(_AHEAD, _AHEAD + columns, _LINE):
            _prefetch(weight, r, offset)
        total = np.float32(0)
        for c in range(columns):
            total += np.float32(weight[r, c]) * row[c]
        output[r] = total * scales[r]


@_compiled
def _normalize(row, weight, epsilon, output):
    squares = np.float32(0)
    for c in range(len(row)):
        squares += row[c] * row[c]
    factor = np.float32(1 / math.sqrt(squares / len(row) + epsilon))
    for c in range(len(row)):
        output[c] = row[c] * factor * weight[c]


@_compiled
def _rotate(head, cos, sin, output):
    """Rotary embedding of one head; the sines of its first half are negative."""
    half = len(head) // 2
    for c in range(half):
        output[c] = head[c] * cos[c] + head[c + half] * sin[c]
        output[c + half] = head[c + half] * cos[c + half] + head[c] * sin[c + half]


@_compiled
def _exp(x):
    """e**x for x <= 0 to five digits, in operations that the compiler can do for many at once.

    Below e**-60 it is 0: products of smaller numbers become so small that the processor slows down.
    """
    power = max(x, np.float32(-87)) * np.float32(1.4426950408889634)
    whole = np.floor(power)
    part = (power - whole) * np.float32(0.6931471805599453)
    series = np.float32(1 / 5040)
    for coefficient in (1 / 720, 1 / 120, 1 / 24, 1 / 6, 1 / 2, 1.0, 1.0):
        series = series * part + np.float32(coefficient)
    result = series * _as_float(np.int32((np.int32(whole) + 127) << 23))
    return result if x > np.float32(-60) else np.float32(0)


@_compiled
def _attend(query, keys, values, length, scores, output):
    """Attention of one head's query [head_dim] over `length` positions of keys and values, see `_float`."""
    size, highest = len(query), np.float32(-np.inf)
    for t in range(length):
        score = np.float32(0)
        for c in range(size):
            score += query[c] * _float(keys[t, c])
        scores[t] = score
        highest = max(highest, score)
    total = np.float32(0)
    for t in range(length):
        scores[t] = _exp(scores[t] - highest)
        total += scores[t]
    output[:] = 0
    for t in range(length):
        for c in range(size):
            output[c] += scores[t] * _float(values[t, c])
    for c in range(size):
        output[c] /= total


@_compiled
def decode(hidden, position, layers, head, norms, epsilon, cos, sin, keys, values, logits):
    """One token through a Llama-type decoder.

    Args:
        hidden: the token's embedding, float32 [hidden_size]; it is overwritten.
        position: how many positions the cache holds already.
        layers: (weights, scales) of query-key-value, output, gate-up and down; int8 [layers, rows, columns] and
            float32 [layers, rows] each.
        head: weight and scales.
        norms: float32 [2 * layers + 1, hidden_size], in the order of use.
        cos, sin: float32 [head_dim] of this position, see `_rotate`.
        keys, values: see `_float`, for each layer [key heads, capacity, head_dim] with room for one more.
        logits: float32 [vocab_size], filled.
    """
    (qkv, qkv_scales), (out, out_scales), (gate_up, gate_up_scales), (down, down_scales) = layers
    size, (key_heads, _, head_dim) = len(hidden), keys[0].shape
    query_heads = qkv.shape[1] // head_dim - 2 * key_heads
    group, half = query_heads // key_heads, gate_up.shape[1] // 2
    normed, projected = np.empty(size, np.float32), np.empty((qkv.shape[1] // head_dim, head_dim), np.float32)
    rotated, attended = np.empty(head_dim, np.float32), np.empty((query_heads, head_dim), np.float32)
    gated, scores = np.empty(2 * half, np.float32), np.empty(position + 1, np.float32)
    for n in range(len(keys)):
        _normalize(hidden, norms[2 * n], epsilon, normed)
        multiply(qkv[n], qkv_scales[n], normed, projected.reshape(-1))
        for h in range(key_heads):
            _rotate(projected[query_heads + h], cos, sin, rotated)
            value = projected[query_heads + key_heads + h]
            for c in range(head_dim):
                keys[n][h, position, c] = _held(rotated[c], keys[n])
                values[n][h, position, c] = _held(value[c], values[n])
        for h in range(query_heads):
            _rotate(projected[h], cos, sin, rotated)
            rotated *= np.float32(head_dim**-0.5)
            _attend(rotated, keys[n][h // group], values[n][h // group], position + 1, scores, attended[h])
        multiply(out[n], out_scales[n], attended.reshape(-1), normed)
        hidden += normed
        _normalize(hidden, norms[2 * n + 1], epsilon, normed)
        multiply(gate_up[n], gate_up_scales[n], normed, gated)
        for c in range(half):
            gate = gated[c]
            small = _exp(-abs(gate))
            gated[c] = gated[half + c] * gate * (np.float32(1) if gate > 0 else small) / (1 + small)
        multiply(down[n], down_scales[n], gated[:half], normed)
        hidden += normed
    _normalize(hidden, norms[-1], epsilon, normed)
    multiply(head[0], head[1], normed, logits)
