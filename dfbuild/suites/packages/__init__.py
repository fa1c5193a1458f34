"""Isolated sets of packages: subsystems that see their own programs by the same path."""
