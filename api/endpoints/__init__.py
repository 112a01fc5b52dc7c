"""The native HTTP endpoints, a file each."""
