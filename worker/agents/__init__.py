"""The agents of the user's own, each a model of the name `agent/NAME`."""
