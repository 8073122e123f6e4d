from collections.abc import Sequence

def take_frames(
    data: bytes, place: int, limit: int, bulk_limit: int, grouped: bool
) -> tuple[int, int, Sequence[list[bytes]]]: ...
