"""The chaos test: everything breaks at random, by a seeded plan, and every reader is exact."""
