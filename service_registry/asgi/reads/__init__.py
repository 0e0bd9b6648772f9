"""Discovery and the list on the event loop, from memory."""
