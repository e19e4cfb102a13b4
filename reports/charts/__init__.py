"""Charts of the report, drawn by matplotlib when it is written and readable without scripts.

matplotlib is imported by canvas.py alone, and that only when a report is made.
"""
