"""Numbers that the caller holds, at the address that it names: arrays that are never an object of the interpreter."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from speculation.compiled.jit import compiled


@intrinsic  # type: ignore[untyped-decorator]
def _pointer(_typing_context: Any, _address: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.voidptr(types.int64), code


@compiled
def whole_numbers(address: int, size: int) -> NDArray[np.int64]:
    made: NDArray[np.int64] = carray(_pointer(address), size, np.int64)
    return made


@compiled
def real_numbers(address: int, size: int) -> NDArray[np.float64]:
    made: NDArray[np.float64] = carray(_pointer(address), size, np.float64)
    return made
