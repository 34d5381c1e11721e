"""The one hash of identities, sources and inputs, without `hashlib`, which loads all of OpenSSL's beside it."""

from __future__ import annotations

try:
    from _blake2 import blake2b  # what `hashlib.blake2b` is
except ImportError:  # an interpreter that was built without it
    from hashlib import blake2b

__all__ = ["blake2b"]
