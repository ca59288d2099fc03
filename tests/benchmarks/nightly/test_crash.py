"""bench nightly: kills are counted, and a night that ends otherwise is seen; in a process that may fork."""

import json
import os
import subprocess
import sys

PROGRAM = """
import json, time
from benchmarks.nightly import crash

def night(broken):
    def run(night):
        out = night.runs / "bundles" / "v" / "weights"
        if not (broken and out.exists()):
            out.parent.mkdir(parents=True, exist_ok=True)
            with out.open("w") as stream:
                for _ in range(10):
                    stream.write("x"); stream.flush()
                    until = time.process_time() + .01
                    while time.process_time() < until:
                        pass
        for name in ("registry/CURRENT", "store/CURRENT"):
            (night.runs / name).parent.mkdir(exist_ok=True)
            (night.runs / name).write_text("v")
        (night.runs / "registry" / "activations.jsonl").write_text('{"previous": null}')
        if broken:
            (night.runs / ".left").touch()
    return run

crash._write_log = lambda *_: None
found = []
for broken in (False, True):
    crash.run_night = night(broken)
    found.append(crash.measure_crash(crash.small_config(), 4, 0).to_json())
print(json.dumps(found))
"""


def test_kills_are_counted_and_a_night_that_ends_otherwise_is_seen():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False, env=os.environ
    )
    assert done.returncode == 0, done.stderr
    sound, broken = (found["crash"] for found in json.loads(done.stdout))
    assert (sound["kills"] >= 2, sound["different_hashes"], sound["litter"]) == (True, 0, 0)
    assert sound["double_activations"] == 0
    assert broken["different_hashes"] > 0
    assert broken["litter"] == broken["nights"]
