"""Model archives: written in canonical bytes, and inspected before Keras sees any of them.

It enters models/ for the layers that a file may name, and stage/.
"""
