"""What API and worker must agree on: events, the log, the queue, the settings."""
