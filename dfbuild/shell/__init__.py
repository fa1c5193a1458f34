"""Commands and files in a guest: one `Shell` protocol over the serial console or SSH.

In: a console or an address, and a login. Out: answers with exit statuses, verified copies.
"""
