"""The lab under abuse: kills, damaged files, mistaken command lines and task files, edits, and other places to measure.

Each module holds one group of trials and a function that takes how many to make and a seed for what it draws. What it returns
counts the trials and names every failure with a way to see it again. ``python -m tests.faults`` runs all groups at full size
(``make faults``), ``tests/test_faults.py`` a few trials of each.
"""
