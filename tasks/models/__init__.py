"""Networks: backbones, heads, layers, whitening, and weights from a file.

It enters params/ for the recipe, and stage/.
"""
