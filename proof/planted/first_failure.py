"""A plugin of pytest: a random test ends with its first failure, without a search for a smaller case."""

from __future__ import annotations

from hypothesis import Phase, settings

settings.register_profile("first failure", phases=(Phase.explicit, Phase.generate), database=None)
settings.load_profile("first failure")
