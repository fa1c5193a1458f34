"""Matrices: expand to cells, plan as a DAG, run. Guests that build steps boot and Xen hosts are here, too.

In: a `Matrix`. Out: a verdict for every cell, journalled as it comes.
"""
