"""That Hypothesis' examples may take as long as a busy machine makes them take."""

from hypothesis import HealthCheck, settings


def test_no_example_has_a_deadline() -> None:
    assert settings().deadline is None
    assert HealthCheck.too_slow in settings().suppress_health_check
