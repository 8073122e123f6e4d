"""Every reader takes any bytes: drawn ones, and those of the corpus with bytes of them changed."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sim.fuzzing import TARGETS, WHOLE_NODES, corpus_of

#: Pieces of the protocols, so that what is drawn gets behind the first byte.
WORDS = (
    b"\r\n", b"*1\r\n", b"*2\r\n", b"*3\r\n", b"$1\r\n", b"$3\r\n", b"$-1\r\n", b"*0\r\n", b"*-1\r\n", b"$0\r\n\r\n",
    b"$3\r\nSET\r\n", b"$3\r\nDEL\r\n", b"$1\r\nk\r\n", b"$5\r\nvalue\r\n", b"+OFFSET 1\r\n", b"+TXN 2\r\n",
    b"+SKIP 5\r\n", b"+SNAPSHOT\r\n", b"+PING 1\r\n", b"-ERR x\r\n", b"REPLCONF ACK 5\r\n", b"MULTI", b"EXEC",
    b":1\r\n", b"#kevynode:", b"kevynode", b"99999999999999999999", b"\x00", b"\xff", b" ", b"1", b"entry", b"file",
    b"$4\r\nPEER\r\n", b"$9\r\nREPLICATE\r\n", b"$4\r\nFROM\r\n", b"_\r\n", b"%1\r\n", b"~2\r\n", b",1.5\r\n",
)  # fmt: skip

anything = st.one_of(
    st.binary(max_size=200),
    st.lists(st.one_of(st.sampled_from(WORDS), st.binary(max_size=6)), max_size=24).map(b"".join),
)


@pytest.mark.parametrize("name", TARGETS)
def test_any_bytes_are_taken(name: str) -> None:
    target = TARGETS[name]

    # What decides a conversation of a whole node is not the words of a protocol, and long.
    inputs = st.binary(min_size=20, max_size=300) if name in WHOLE_NODES else anything

    @settings(max_examples=12 if name in WHOLE_NODES else 150, deadline=None, database=None)
    @example(b"")
    @given(inputs)
    def run(data: bytes) -> None:
        target(data)

    run()


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus_is_taken_whole_cut_and_changed(name: str) -> None:
    found = corpus_of(name)
    assert found, f"there is nothing to begin with for {name}"
    for data in found:
        TARGETS[name](data)
        random = Random(data)
        for _ in range(2 if name in WHOLE_NODES else 60):
            changed = bytearray(data[: random.randrange(len(data) + 1)])
            for _ in range(random.randrange(4)):
                if changed:
                    changed[random.randrange(len(changed))] = random.choice((0, 13, 10, 36, 42, 48, 57, 255))
            TARGETS[name](bytes(changed))
