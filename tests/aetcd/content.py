"""The aetcd package as a user of Quorate would use it: python3 content.py PORT. Prints "content" when all is well."""

import asyncio
import sys

import aetcd


async def main(port):
    async with aetcd.Client(host="127.0.0.1", port=port) as client:
        await client.put(b"k", b"v")
        assert (await client.get(b"k")).value == b"v"
        lease = await client.lease(30)
        await client.put(b"l", b"v", lease=lease)
        await lease.revoke()
        assert await client.get(b"l") is None


asyncio.run(main(int(sys.argv[1])))
print("content")
