"""Eight float64 lanes as a value in compiled code, so that a kernel can say what stays in registers.

LLVM maps a `Lanes` value to one AVX-512 register, two of AVX2 or four of SSE2 and NEON. Nothing here knows about
mixtures. Offsets count float64 entries into a flat array; they are not checked.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core.datamodel import models
from numba.extending import intrinsic, register_model

WIDTH = 8
_VECTOR = ir.VectorType(ir.DoubleType(), WIDTH)
_FLAGS = ("contract", "nsz")


class _Lanes(types.Type):
    def __init__(self) -> None:
        super().__init__(name="Lanes")


_lanes = _Lanes()


@register_model(_Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager, fe_type) -> None:
        super().__init__(manager, fe_type, _VECTOR)


def _pointer(context, builder, array_type, array, offset):
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [offset]), _VECTOR.as_pointer())


@intrinsic
def load(typing_context, array, offset):
    """Eight entries of a contiguous array from an offset."""

    def generate(context, builder, signature, args):
        pointer = _pointer(context, builder, signature.args[0], *args)
        return builder.load(pointer, align=8)

    return _lanes(array, types.intp), generate


@intrinsic
def store(typing_context, array, offset, value):
    """Write eight entries of a contiguous array from an offset."""

    def generate(context, builder, signature, args):
        builder.store(args[2], _pointer(context, builder, signature.args[0], *args[:2]), align=8)
        return context.get_dummy_value()

    return types.void(array, types.intp, _lanes), generate


@intrinsic
def splat(typing_context, value):
    """The same number in all lanes."""

    def generate(context, builder, signature, args):
        one = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), args[0], ir.Constant(ir.IntType(32), 0))
        return _shuffle(builder, one, one, [0] * WIDTH)

    return _lanes(types.float64), generate


def _shuffle(builder, a, b, order):
    mask = ir.Constant(ir.VectorType(ir.IntType(32), WIDTH), order)
    return builder.shuffle_vector(a, b, mask)


@intrinsic
def subtract(typing_context, a, b):
    """Lanes of a - b."""
    return _lanes(_lanes, _lanes), lambda c, builder, s, args: builder.fsub(*args, flags=_FLAGS)


@intrinsic
def add(typing_context, a, b):
    """Lanes of a + b."""
    return _lanes(_lanes, _lanes), lambda c, builder, s, args: builder.fadd(*args, flags=_FLAGS)


@intrinsic
def multiply(typing_context, a, b):
    """Lanes of a b."""
    return _lanes(_lanes, _lanes), lambda c, builder, s, args: builder.fmul(*args, flags=_FLAGS)


@intrinsic
def maximum(typing_context, a, b):
    """Lanes of max(a, b); b where a is NaN."""

    def generate(context, builder, signature, args):
        return builder.select(builder.fcmp_ordered(">", *args), *args)

    return _lanes(_lanes, _lanes), generate


@intrinsic
def multiply_add(typing_context, a, b, c):
    """Lanes of a b + c, fused where the processor can."""

    def generate(context, builder, signature, args):
        return builder.fadd(builder.fmul(*args[:2], flags=_FLAGS), args[2], flags=_FLAGS)

    return _lanes(_lanes, _lanes, _lanes), generate


@intrinsic
def totals(typing_context, a, b, c, d, e, f, g, h):
    """The sums over the lanes of eight values, as the eight lanes of one."""

    def halve(builder, x, y, first, step):
        second = [lane + step for lane in first]
        return builder.fadd(_shuffle(builder, x, y, first), _shuffle(builder, x, y, second), flags=_FLAGS)

    def generate(context, builder, signature, args):
        pairs = [halve(builder, args[i], args[i + 1], [0, 8, 2, 10, 4, 12, 6, 14], 1) for i in range(0, WIDTH, 2)]
        fours = [halve(builder, pairs[i], pairs[i + 1], [0, 1, 8, 9, 4, 5, 12, 13], 2) for i in (0, 2)]
        return halve(builder, fours[0], fours[1], [0, 1, 2, 3, 8, 9, 10, 11], 4)

    return _lanes(*[_lanes] * WIDTH), generate
