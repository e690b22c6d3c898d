"""What people look at: the report, its plots, the picture of an architecture.

It enters evaluation/ for the measures, and stage/.
"""
