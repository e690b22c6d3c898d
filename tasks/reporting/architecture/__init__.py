"""The model as a picture and as a table, of any functional or sequential Keras model, without graphviz.

Both are functions of the model alone: no date, no terminal width, no locale.
"""

from tasks.reporting.architecture.picture import draw_architecture
from tasks.reporting.architecture.summary import write_summary

__all__ = ["draw_architecture", "write_summary"]
