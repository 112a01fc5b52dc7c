"""docs/protocol.md over HTTP, section by section, against real processes."""
