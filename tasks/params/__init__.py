"""What params.yaml may say, a model a section, and what a training recipe may hold; a value that cannot be is named.

It enters stage/ alone.
"""
