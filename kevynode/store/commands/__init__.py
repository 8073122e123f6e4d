"""Commands by type; importing this package enters them all into the command table."""
