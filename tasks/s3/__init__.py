"""The bucket: one client, its credentials, retries, checksums and conditional writes; no release, no signature.

It enters stage/ alone.
"""
