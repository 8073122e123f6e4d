"""The hot parts once more, compiled: see :mod:`kevynode.twins`, which chooses.

Everything here has a twin in pure Python that says what it must do; where a case is unusual, the work is handed to
that twin. The extension modules are built at installation if there is a C compiler, and nothing fails without them.
"""
