"""How a stage runs: errors and exit status, files written whole or not at all, progress, a TensorFlow that is quiet.

Every room may enter it; it enters none.
"""
