"""Copies: streaming a node's changes to replicas, and being a replica. The protocol parts know no I/O."""
