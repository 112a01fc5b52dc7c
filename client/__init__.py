"""The user's end: the Python client and the rejoin command."""
