class EmbeddedError(Exception):
    """What keeps `make run` from going on. Its text is one sentence for the person at the terminal."""
