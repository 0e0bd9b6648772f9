"""The asynchronous doors: requests that are answered on the event loop, and share what they need of the database."""
