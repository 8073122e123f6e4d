"""What all tests share: how Hypothesis runs them."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# How long an example takes says how busy the machine is, and nothing about the node. All else is as Hypothesis has it:
# where the environment has CI, the same examples every time.
settings.register_profile("untimed", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")
