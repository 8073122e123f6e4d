"""Live copies: the stream a primary sends, what its followers make of it, and how far each of them is."""
