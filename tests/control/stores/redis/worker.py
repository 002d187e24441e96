"""A process of its own that counts in the shared store: told over standard input, answers in lines of JSON.

burst N      asks for N reservations at once, each for the claims it was started with; answers how many it got
end HOW      ends everything it holds
take N       N reservations one after another, held
"""

import asyncio
import json
import pickle
import sys

from control.stores.redis.place import Place
from control.stores.redis.store import RedisReservations
from rules.claims import Claim, Reserved


async def main(url: str, name: str, lease_seconds: float) -> None:
    store = RedisReservations(Place.parse(url), name, lease_seconds=lease_seconds)
    await store.start()
    loop = asyncio.get_running_loop()
    held: list[Reserved] = []
    say(ready=store.health().state)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        word, _, rest = line.strip().partition(" ")
        if word == "burst":
            number, claims = rest.split(" ", 1)
            asked = (store.reserve(f"{name}-{one}", claims_of(claims)) for one in range(int(number)))
            got = [answer for answer in await asyncio.gather(*asked) if isinstance(answer, Reserved)]
            held += got
            say(granted=len(got))
        elif word == "end":
            for reserved in held:
                if rest == "settle":
                    store.settle(reserved, {})
                else:
                    store.release(reserved)
            held.clear()
            say(settled=await store.settled())
    await store.stop()


def claims_of(text: str) -> tuple[Claim, ...]:
    return pickle.loads(bytes.fromhex(text))  # type: ignore[no-any-return] # written by the test that started us


def say(**what: object) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3])))
