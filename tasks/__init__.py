"""The stages, one file each, and the rooms that they are built from. Nothing here imports Prefect."""

import os

# TensorFlow's C++ lines about drivers and instructions drown what a stage has to say; its errors still raise.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
