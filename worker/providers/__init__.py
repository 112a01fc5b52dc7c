"""The providers: an adapter each, behind one interface."""
