"""Parts of the bench as they should not be; the worker imports them by name."""

import os
import time


def works(settings):
    return {"line": "fine", "device": str(settings.device)}


def raises(settings):
    raise RuntimeError("out of memory")


def dies(settings):
    os._exit(7)


def hangs(settings):
    time.sleep(600)
