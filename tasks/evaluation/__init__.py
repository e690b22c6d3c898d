"""What a model answers, every test image once, and the measures of it: no picture and no sentence.

It enters stage/ alone.
"""
