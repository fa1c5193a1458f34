"""Builds: recipes with content keys, made once in a sandbox, proven by ELF facts.

In: a `Release` and a `Cell`. Out: artefacts; one package a target knows how.
"""
