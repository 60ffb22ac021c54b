"""The errors that this package raises on purpose.

Each message says what was expected, what was given instead, and what to do. All of them derive from
:class:`LitCompressError`, and from the built-in error that fits best.
"""

from __future__ import annotations


class LitCompressError(Exception):
    """Base class of all errors of this package; the command line prints its message as one line."""


class InvalidArgumentError(LitCompressError, ValueError):
    """An argument of a callback, module, datamodule or function has an impossible value."""


class ScheduleError(LitCompressError, ValueError):
    """A pruning schedule is malformed, or does not suit the length of the run."""


class PatternError(LitCompressError, ValueError):
    """A layer pattern matches no layer, or the matched layers cannot be pruned."""


class DataNotFoundError(LitCompressError, FileNotFoundError):
    """The files of a data set are missing and cannot be downloaded."""


class CorruptDataError(LitCompressError, ValueError):
    """A data file exists but cannot be read."""


class CheckpointError(LitCompressError, ValueError):
    """A checkpoint cannot be read, or its weights do not match the module."""


class RuleError(LitCompressError, ValueError):
    """A rule file cannot be read, or a rule matches nothing."""


class ChannelError(LitCompressError, ValueError):
    """The channels of a network cannot be found, or none of them can be removed."""


class PlanError(LitCompressError, ValueError):
    """A pruning plan is damaged, or was made for another network or optimizer."""


class CalibrationError(LitCompressError, ValueError):
    """Calibration data is missing, or holds NaN or infinity."""


class ExportError(LitCompressError, ValueError):
    """A forward cannot be turned into a graph or an ONNX file."""


class AccuracyError(LitCompressError, ValueError):
    """A converted file loses more of the metric than is allowed."""


class ArtifactError(LitCompressError, ValueError):
    """A folder is not an artefact, or an artefact cannot be written."""


class ReplayError(LitCompressError, ValueError):
    """A function cannot be run again from the middle, because its torch calls differ each time."""


class ScanError(LitCompressError, ValueError):
    """A sensitivity scan cannot be done, or cannot continue the scan in its folder."""


class ReportError(LitCompressError, ValueError):
    """A report cannot be built: there is no card that can be read, or a package is missing."""


class ProcessError(LitCompressError, RuntimeError):
    """Another process of the run has failed, or cannot be reached."""


class SearchError(LitCompressError, ValueError):
    """A search cannot be done, or cannot go on with the study of its name."""
