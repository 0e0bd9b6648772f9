"""`make demo`: three services start and stop, and a client checks the list."""
