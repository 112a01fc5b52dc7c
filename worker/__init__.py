"""What faces the providers: the worker that runs messages."""
