"""Sensitivity scan: how much the metric drops when one layer is pruned, without training.

:mod:`~lit_compress.sensitivity.scan` is the procedure. It takes the layers and ratios to try from
``targets``, a fixed part of the validation data from ``sample``, and the metrics of each trial from
``trials``. A trial does not run the network from its start: ``calls`` finds the first torch call
that a pruned weight can change, and runs the network from there. ``logged`` collects the
metrics, ``table`` keeps the rows in a CSV file, ``metric_drop`` judges them, ``result`` writes the
rules, ``figure`` draws the curves.
"""
