"""A guest that is up: boots it, judges the boot, and shares it with other processes over a socket.

In: a `Guest` and a `Release`. Out: a `Session`, held here or attached to from elsewhere.
"""
