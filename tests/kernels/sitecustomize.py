"""Give LiteRT other kernels: with this folder on PYTHONPATH it runs without XNNPACK.

XNNPACK chooses kernels by what the processor can do and has no switch for it. Without
it LiteRT's built-in ones run, as they do on a processor that XNNPACK does not know.
"""

import ai_edge_litert.interpreter as litert

_WITHOUT_XNNPACK = litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES


class Interpreter(litert.Interpreter):
    """An interpreter without XNNPACK."""

    def __init__(self, *args, **options):
        options.setdefault("experimental_op_resolver_type", _WITHOUT_XNNPACK)
        super().__init__(*args, **options)


litert.Interpreter = Interpreter
