"""Charts of the report, drawn when it is written and readable without scripts.

What has scales is drawn by matplotlib, which canvas.py alone imports, and that only when there is
something to draw; bars and areas along time are plain SVG (sheet.py).
"""
