"""Loops over weights of 8 and 4 bits, compiled by Numba for this processor: a matrix by a row, and a decode step.

PyTorch has no kernel that multiplies small 8-bit matrices with one row as fast as memory delivers them, and it spends
more time between its kernels than in them. Its kernel for 4 bits needs a special layout, with which a prompt's many
rows are multiplied ten times more slowly than with floats. The kernels here never round activations. They need no C++
compiler, and Numba keeps the compiled code on disk.
"""
# pyright: reportCallIssue=false
# Numba passes the first parameter (`context`) of an `intrinsic`; its callers don't.

import math

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

_PREFETCH_BYTES = 4096  # a row is too short for the processor to predict that the next ones follow
_CACHE_LINE_BYTES = 64
_ZERO_POINT_VALUE = np.float32(8)  # the 4-bit value that encodes the zero point of its group
_compiled = njit(nogil=True, fastmath=True, error_model="numpy", cache=True)


@intrinsic
def _prefetch(context, array, row, offset):
    """Prefetch the cache line `offset` bytes after the start of a row; it may lie beyond the array."""

    def generate(context, builder, signature, args):
        matrix = context.make_array(signature.args[0])(context, builder, args[0])
        byte, integer = ir.IntType(8).as_pointer(), ir.IntType(32)
        distance = builder.add(builder.mul(args[1], builder.extract_value(matrix.strides, 0)), args[2])
        address = builder.gep(builder.bitcast(matrix.data, byte), [distance])
        kind = ir.FunctionType(ir.VoidType(), [byte, integer, integer, integer])
        function = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        builder.call(function, [address, integer(0), integer(3), integer(1)])  # to read data, all levels
        return context.get_dummy_value()

    return types.void(array, row, offset), generate


@intrinsic
def _to_float32(context, stored):
    """The float32 of a stored number: float32 itself, or bfloat16 as uint16."""
    if stored == types.float32:
        return types.float32(stored), lambda context, builder, signature, args: args[0]

    def generate(context, builder, signature, args):
        integer = ir.IntType(32)
        return builder.bitcast(builder.shl(builder.zext(args[0], integer), integer(16)), ir.FloatType())

    return types.float32(types.uint16), generate


@intrinsic
def _float32_from_bits(context, bits):
    """The float32 with the bits of an int32."""

    def generate(context, builder, signature, args):
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.int32), generate


@intrinsic
def _to_stored(context, value, array):
    """A float32 in the type of `array`: unchanged, or the nearest bfloat16 (ties to even) as uint16."""
    if array.dtype == types.float32:
        return types.float32(value, array), lambda context, builder, signature, args: args[0]

    def generate(context, builder, signature, args):
        integer = ir.IntType(32)
        bits = builder.bitcast(args[0], integer)
        odd = builder.and_(builder.lshr(bits, integer(16)), integer(1))
        rounded = builder.add(bits, builder.add(odd, integer(0x7FFF)))
        return builder.trunc(builder.lshr(rounded, integer(16)), ir.IntType(16))

    return types.uint16(value, array), generate


@_compiled
def multiply(row, weight, scales, output):
    """output[rows] = (int8 weight [rows, columns] @ float32 row [columns]) * float32 scales[rows]."""
    columns = weight.shape[1]
    for r in range(weight.shape[0]):
        for offset in range(_PREFETCH_BYTES, _PREFETCH_BYTES + columns, _CACHE_LINE_BYTES):
            _prefetch(weight, r, offset)
        total = np.float32(0)
        for c in range(columns):
            total += np.float32(weight[r, c]) * row[c]
        output[r] = total * scales[r]


@intrinsic
def _dot_pairs(context, pairs, scales, r, lanes, sums):
    """The product of row r of a 4-bit weight with `lanes`, see `multiply_pairs`.

    Written with vector instructions, because the compiler can't vectorize loops over half bytes. The four bits are put
    into the upper bits of a float's fraction, which makes the float 16 + value without a conversion; the 16 is
    subtracted together with the zero point.
    """

    def generate(context, builder, signature, args):
        byte, integer, single = ir.IntType(8), ir.IntType(32), ir.FloatType()
        integers, floats, four, four_floats = (
            ir.VectorType(kind, count) for count in (16, 4) for kind in (integer, single)
        )
        arrays = [context.make_array(signature.args[n])(context, builder, args[n]) for n in (0, 1, 3, 4)]
        fast = {"flags": ["fast"]}

        def pointer(array, kind, row):
            start = builder.mul(row, builder.extract_value(array.strides, 0))
            return builder.bitcast(
                builder.gep(builder.bitcast(array.data, byte.as_pointer()), [start]), kind.as_pointer()
            )

        def load(source, index, alignment):
            value = builder.load(builder.gep(source, [index]))
            value.align = alignment
            return value

        def every(value, kind):
            return ir.Constant(kind, [value] * kind.count)

        zero = args[2].type(0)
        kinds, rows = (integers, four, floats, four_floats), (args[2], args[2], zero, zero)
        values, factors, lanes, sums = map(pointer, arrays, kinds, rows)
        total = cgutils.alloca_once_value(builder, every(0.0, floats))
        rest = cgutils.alloca_once_value(builder, every(0.0, four_floats))
        with cgutils.for_range(builder, builder.extract_value(arrays[2].shape, 0)) as loop:
            word, part = load(values, loop.index, 1), every(0.0, floats)
            for n in range(8):
                shift = 19 - 4 * n  # to the upper four of 23 bits of a fraction
                moved = (builder.shl if shift > 0 else builder.lshr)(word, every(abs(shift), integers))
                fraction = builder.and_(moved, every(0x780000, integers))
                value = builder.bitcast(builder.or_(fraction, every(0x41800000, integers)), floats)  # 16.0 and up
                place = builder.add(builder.mul(loop.index, loop.index.type(8)), loop.index.type(n))
                part = builder.fadd(part, builder.fmul(value, load(lanes, place, 4), **fast), **fast)
            both = load(factors, loop.index, 2)  # two bfloat16 each
            scale = builder.bitcast(builder.shl(both, every(16, four)), four_floats)
            least = builder.bitcast(builder.and_(both, every(0xFFFF0000, four)), four_floats)
            spread = ir.Constant(integers, [lane // 4 for lane in range(16)])
            part = builder.fmul(part, builder.shuffle_vector(scale, scale, spread), **fast)
            builder.store(builder.fadd(builder.load(total), part, **fast), total)
            least = builder.fsub(least, builder.fmul(scale, every(24.0, four_floats), **fast), **fast)
            part = builder.fmul(least, load(sums, loop.index, 4), **fast)
            builder.store(builder.fadd(builder.load(rest), part, **fast), rest)
        result = single(0)
        for parts in (rest, total):
            parts = builder.load(parts)
            kind = ir.FunctionType(single, [single, parts.type])
            name = f"llvm.vector.reduce.fadd.v{parts.type.count}f32"
            add = cgutils.get_or_insert_function(builder.module, kind, name)
            result = builder.call(add, [result, parts], fastmath=["fast"])
        return result

    return types.float32(pairs, scales, r, lanes, sums), generate


@_compiled
def multiply_pairs(row, lanes, sums, pairs, scales, output):
    """output[rows] = 4-bit weight [rows, columns] @ float32 row [columns], formats as in `quantized_layers`.

    Args:
        row: float32 [columns].
        lanes: the row in blocks of 128 columns, each transposed from [16, 8]: float32 [blocks, 8, 16].
        sums: the row's sums over groups of 32 columns, float32 [groups].
        pairs: uint8 [rows, columns / 2].
        scales: bfloat16 as uint16, [rows, groups, 2]: scale and zero point.
        output: float32 [rows], filled.
    """
    half = pairs.shape[1]
    for r in range(pairs.shape[0]):
        for offset in range(_PREFETCH_BYTES, _PREFETCH_BYTES + half, _CACHE_LINE_BYTES):
            _prefetch(pairs, r, offset)
        total = _dot_pairs(pairs, scales, r, lanes, sums)
        for g in range(4 * len(lanes), len(sums)):  # groups after the last whole block
            part = np.float32(0)
            for c in range(16 * g, 16 * g + 16):
                pair = pairs[r, c]
                part += np.float32(np.uint8(pair & 15)) * row[2 * c] + np.float32(np.uint8(pair >> 4)) * row[2 * c + 1]
            scale = _to_float32(scales[r, g, 0])
            total += part * scale + sums[g] * (_to_float32(scales[r, g, 1]) - _ZERO_POINT_VALUE * scale)
        output[r] = total


@_compiled
def unpack_pairs(pairs, scales, output):
    """Fill output [rows, groups, 32], with the weights that pairs [rows, groups, 16] and their scales encode."""
    rows, groups, size = pairs.shape
    for r in range(rows):
        for g in range(groups):
            scale = _to_float32(scales[r, g, 0])
            zero = _to_float32(scales[r, g, 1])
            for c in range(size):
                pair = pairs[r, g, c]
                output[r, g, 2 * c] = _to_stored(
                    (np.float32(np.uint8(pair & 15)) - _ZERO_POINT_VALUE) * scale + zero, output
                )
                output[r, g, 2 * c + 1] = _to_stored(
                    (np.float32(np.uint8(pair >> 4)) - _ZERO_POINT_VALUE) * scale + zero, output
                )


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
    """Rotary embedding of one head; `sin` has negative sines in its first half."""
    half = len(head) // 2
    for c in range(half):
        output[c] = head[c] * cos[c] + head[c + half] * sin[c]
        output[c + half] = head[c + half] * cos[c + half] + head[c] * sin[c + half]


@_compiled
def _exp(x):
    """e**x for x <= 0 to five digits, in operations that the compiler can vectorize.

    The result is 0 for x <= -60: products with smaller numbers would be denormal, which slows the processor down.
    """
    power = max(x, np.float32(-87)) * np.float32(1.4426950408889634)
    whole = np.floor(power)
    part = (power - whole) * np.float32(0.6931471805599453)
    series = np.float32(1 / 5040)
    for coefficient in (1 / 720, 1 / 120, 1 / 24, 1 / 6, 1 / 2, 1.0, 1.0):
        series = series * part + np.float32(coefficient)
    result = series * _float32_from_bits(np.int32((np.int32(whole) + 127) << 23))
    return result if x > np.float32(-60) else np.float32(0)


@_compiled
def _attend(query, keys, values, length, scores, output):
    """Attention of one head's query [head_dim] over `length` positions of keys and values, see `_to_float32`."""
    size, highest = len(query), np.float32(-np.inf)
    for t in range(length):
        score = np.float32(0)
        for c in range(size):
            score += query[c] * _to_float32(keys[t, c])
        scores[t] = score
        highest = max(highest, score)
    total = np.float32(0)
    for t in range(length):
        scores[t] = _exp(scores[t] - highest)
        total += scores[t]
    output[:] = 0
    for t in range(length):
        for c in range(size):
            output[c] += scores[t] * _to_float32(values[t, c])
    for c in range(size):
        output[c] /= total


@_compiled
def decode(hidden, position, layers, head, norms, epsilon, cos, sin, keys, values, logits):
    """One token through a Llama-type decoder.

    Args:
        hidden: the token's embedding, float32 [hidden_size]; overwritten.
        position: the number of positions in the cache.
        layers: (weights, scales) of query-key-value, output, gate-up and down; int8 [layers, rows, columns] and
            float32 [layers, rows] each.
        head: weight and scales.
        norms: float32 [2 * layers + 1, hidden_size], in the order of use.
        cos, sin: float32 [head_dim] of this position, see `_rotate`.
        keys, values: for each layer [key heads, capacity, head_dim], float32 or bfloat16 as uint16, with room for one
            more position.
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
        multiply(normed, qkv[n], qkv_scales[n], projected.reshape(-1))
        for h in range(key_heads):
            _rotate(projected[query_heads + h], cos, sin, rotated)
            value = projected[query_heads + key_heads + h]
            for c in range(head_dim):
                keys[n][h, position, c] = _to_stored(rotated[c], keys[n])
                values[n][h, position, c] = _to_stored(value[c], values[n])
        for h in range(query_heads):
            _rotate(projected[h], cos, sin, rotated)
            rotated *= np.float32(head_dim**-0.5)
            _attend(rotated, keys[n][h // group], values[n][h // group], position + 1, scores, attended[h])
        multiply(attended.reshape(-1), out[n], out_scales[n], normed)
        hidden += normed
        _normalize(hidden, norms[2 * n + 1], epsilon, normed)
        multiply(normed, gate_up[n], gate_up_scales[n], gated)
        for c in range(half):
            gate = gated[c]
            small = _exp(-abs(gate))
            gated[c] = gated[half + c] * gate * (np.float32(1) if gate > 0 else small) / (1 + small)
        multiply(gated[:half], down[n], down_scales[n], normed)
        hidden += normed
    _normalize(hidden, norms[-1], epsilon, normed)
    multiply(normed, head[0], head[1], logits)
