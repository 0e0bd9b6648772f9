"""Register, heartbeat and deregister on the event loop, in micro-batches."""
