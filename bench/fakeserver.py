"""fakeredis' TCP server in a process of its own: ``python -m bench.fakeserver``."""

from fakeredis import TcpFakeServer

HOST = "127.0.0.1"


def main() -> None:
    """Listen on any free loopback port, print the ready line, and serve until the process is ended."""
    server = TcpFakeServer((HOST, 0))
    print(f"fakeredis ready client={HOST}:{server.server_address[1]}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
