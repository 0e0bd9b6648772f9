"""The watch on the event loop: event streams and long polls."""
