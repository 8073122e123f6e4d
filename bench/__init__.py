"""Comparisons of a kevynode node with the servers a user would pick instead, on one machine in one run.

Run it with ``python -m bench``; ``bench/README.md`` explains the method and how to read the table. Nothing
here is part of the installed package or of the test suite.
"""
