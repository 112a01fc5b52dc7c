"""What clients face: the HTTP API and the tails."""
