import asyncio, pytest, sys, gc, sqlite3, threading, types
from tests.faults.test_cancellation import points_of, struck, blocks, drivers_at_rest
from tests.faults import test_cancellation as tc
from tests.faults import units
@pytest.mark.needs("core", "one_writer", "async")
async def test_s(world):
    orig = tc.check
    def probe():
        c = sqlite3.connect(world.url.partition("///")[2], timeout=0)
        try: c.execute("BEGIN EXCLUSIVE"); return ("free")
        except Exception as e: return str(e)
        finally: c.close()
    def chk(world, done):
        a = probe()
        if a != "free":
            print("locked", threading.enumerate(), [c for c in gc.get_objects() if isinstance(c, (sqlite3.Cursor, sqlite3.Connection))])
            for c in gc.get_objects():
                if isinstance(c, sqlite3.Cursor):
                    for rf in gc.get_referrers(c):
                        print("   REF", type(rf), str(rf)[:150])
                        for r2 in gc.get_referrers(rf):
                            print("      REF2", type(r2), str(r2)[:150])
            import time; time.sleep(0.3); print("after sleep", probe()); gc.collect(); print("after gc", probe())
        orig(world, done)
    tc.check = chk
    try:
      for first in await points_of(world, blocks):
        _, n = await struck(world, blocks, cancel_at={first})
        for second in range(first + 1, n + 1):
            print(first, second, flush=True)
            await struck(world, blocks, cancel_at={first, second})
    finally: tc.check = orig
