"""The stages, one file each, and the rooms that they are built from. Nothing here imports Prefect."""
