"""Checks of the network: connections in numbers, throughput, forged segments, and what can't be foreseen."""
