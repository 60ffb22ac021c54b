"""The verb ``search``: many fits of one configuration, by Optuna, and the front that they reach.

``settings`` reads the file, ``space`` puts values into the configuration of a fit, ``study`` opens
what all workers share, and ``worker`` runs trials until there are enough. The command line passes
what runs a fit.
"""
