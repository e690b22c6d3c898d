"""Reading archives and images, who trains and who tests, and the arrays that pass between the stages.

It enters stage/ alone.
"""
