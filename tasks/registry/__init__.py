"""Releases, channels, the gate and signatures; `python -m tasks.registry`.

It enters data/, evaluation/, model_files/, params/, s3/, sources/ and stage/; no stage's module.
"""
