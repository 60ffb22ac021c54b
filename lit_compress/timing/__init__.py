"""Time functions in turn, with intervals, and describe the machine. It needs numpy alone.

- :mod:`~lit_compress.timing.in_turn` calls runners in turn.
- :mod:`~lit_compress.timing.intervals` gives medians and ratios their intervals.
- :mod:`~lit_compress.timing.environment` describes the machine.

Both a module of PyTorch (:mod:`lit_compress.measure`) and a file where torch is not installed
(:mod:`lit_compress.benchmark`) are timed by it.
"""
