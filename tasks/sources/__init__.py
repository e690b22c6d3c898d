"""Where data come from: addresses, transfers that go on where they broke, and what lies in data/raw.

It enters stage/ alone.
"""
