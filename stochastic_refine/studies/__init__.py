"""The paper's studies: each computes rows from images and networks and writes them as a table, as JSON and as a figure.

What they share is told in :mod:`~stochastic_refine.studies.frame`.
"""
