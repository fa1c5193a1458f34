"""How long a test waits for what happens at once."""

AT_ONCE = 8.0
"""Seconds. An idle host needs hundredths, a busy one more; what is not at once takes a minute in these tests."""
