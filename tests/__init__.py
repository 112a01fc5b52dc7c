"""Tests of Rejoin, from the contract inwards."""
