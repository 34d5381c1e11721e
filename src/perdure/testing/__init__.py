"""Tools for testing: the conformance kit, `perdure.testing.conformance`."""
