"""What a model answers, every test image once, which views of it are averaged and why, and the measures: no picture.

It enters stage/ alone.
"""
