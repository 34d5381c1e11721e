"""The hash of identities, sources and inputs. `hashlib` is not imported, because it loads OpenSSL."""

from __future__ import annotations

try:
    from _blake2 import blake2b  # the same as `hashlib.blake2b`
except ImportError:  # an interpreter without the module
    from hashlib import blake2b

__all__ = ["blake2b"]
