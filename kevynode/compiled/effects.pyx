# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The one change that the twin of a handler has just made."""

CHANGE.command = NULL
