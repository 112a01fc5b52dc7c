"""What breaks around Rejoin, a file a mechanism: nothing is lost, doubled or silent."""
