"""Matrices: expand to cells, filter, plan as a DAG, run, resume.

In: a `Matrix`. Out: a verdict for every cell, journalled as it comes.
"""
