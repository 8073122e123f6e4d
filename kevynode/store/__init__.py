"""The data: a keyspace of shards, values, commands by type, and the journal every change enters."""
