"""What survives a restart: the append-only file, its manifest, and the way back from it.

Formats and their readers are pure; writing, loading and rewriting drive the disk that they are given.
"""
