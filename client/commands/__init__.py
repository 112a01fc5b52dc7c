"""The rejoin command, a file a sub-command."""
