"""Errors that say what was expected, what came, and what to do."""

from __future__ import annotations


class LitCompressError(Exception):
    """Base of every error this package raises; the command line prints its message as one line."""


class InvalidArgumentError(LitCompressError, ValueError):
    """An argument of a callback, module, datamodule or function that cannot be right."""


class ScheduleError(LitCompressError, ValueError):
    """A pruning schedule that is malformed or does not fit the run."""


class PatternError(LitCompressError, ValueError):
    """A layer pattern that matches nothing, or layers that cannot be pruned."""


class DataNotFoundError(LitCompressError, FileNotFoundError):
    """A data set whose files are missing and cannot be downloaded."""


class CorruptDataError(LitCompressError, ValueError):
    """A data file that is there but cannot be read."""


class CheckpointError(LitCompressError, ValueError):
    """A checkpoint whose weights do not fit the module."""


class RuleError(LitCompressError, ValueError):
    """A rule file that cannot be read, or a rule that matches nothing."""


class ChannelError(LitCompressError, ValueError):
    """A network whose channels cannot be found, or none of which can go."""


class PlanError(LitCompressError, ValueError):
    """A pruning plan that is damaged, or for another network or optimizer."""


class CalibrationError(LitCompressError, ValueError):
    """Calibration data that is missing or not finite."""


class ExportError(LitCompressError, ValueError):
    """A forward that cannot be turned into a graph or an ONNX file."""


class AccuracyError(LitCompressError, ValueError):
    """A converted file that loses more than was allowed."""


class ArtifactError(LitCompressError, ValueError):
    """A folder that is not an artefact, or one that cannot be written."""


class ReplayError(LitCompressError, ValueError):
    """A function that cannot be run again from the middle, as it makes other calls each time."""


class ScanError(LitCompressError, ValueError):
    """A sensitivity scan that cannot be made, or does not fit the one it should go on from."""
