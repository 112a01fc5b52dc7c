"""What tests stand on: servers, processes, readers."""
