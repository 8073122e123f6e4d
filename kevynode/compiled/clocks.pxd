"""The system's clock, without asking Python."""

from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec


# Seconds, as ``time.perf_counter`` gives them where that reads the same clock.
cdef inline double system_seconds() noexcept:
    cdef timespec moment
    clock_gettime(CLOCK_MONOTONIC, &moment)
    return <double>moment.tv_sec + <double>moment.tv_nsec * 1e-9
