"""Serving clients: sessions, dispatch and gates, transactions, pub/sub, blocking commands, administration."""
