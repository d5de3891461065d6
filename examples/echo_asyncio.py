"""Echo over two hops with asyncio: reader, writer and start_server as asyncio has them.

python examples/echo_asyncio.py [TEXT ...]
"""

import asyncio
import sys

import receptor
import receptor.testing


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


async def main() -> None:
    async with (
        receptor.testing.aio_mesh("left", "middle", "right", shape="line") as nodes,
        await nodes["right"].start_server(echo, "echo"),
    ):
        reader, writer = await nodes["left"].open_connection("right", "echo")
        print("connected to", writer.get_extra_info("mesh_peer"))
        for word in sys.argv[1:] or ["hello", "mesh"]:
            writer.write(f"{word}\n".encode())
            print("echo:", (await reader.readline()).decode().strip())
        writer.close()
        await writer.wait_closed()


if __name__ == "__main__":
    asyncio.run(main())
