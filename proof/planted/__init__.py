"""Faults planted in perdure's own code, and the detectors that have to catch each of them.

The plants are data (`*.toml` beside this module). `python -m proof.planted` plants one fault after the other in a copy
of the sources, lets the detectors loose on the copy, and writes `CATCHES.md`.
"""
