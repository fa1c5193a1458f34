"""Virtual machines: a `GuestSpec` comes in, a running process with its console and QMP goes out.

Pure functions compose the command line; a thin shell starts, stops and probes.
"""
