"""The processors a process may use, from files as Linux shows them."""

import os

import pytest

from recsys.cpus import cpu_quota, num_cpus

V2 = "31 23 0:28 {mounted} /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate"
V1 = "32 31 0:29 {mounted} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpuacct,cpu"
TMPFS = "30 23 0:27 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755"


@pytest.fixture
def machine(tmp_path):
    def made(cgroup, mountinfo, **files):
        for name, text in {"proc/self/cgroup": cgroup, "proc/self/mountinfo": mountinfo, **files}.items():
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{text}\n")
        return tmp_path

    return made


@pytest.mark.parametrize(
    ("text", "quota"), [("150000 100000", 1.5), ("400000 100000", 4), ("max 100000", None)]
)
def test_version_2_in_a_container(machine, text, quota) -> None:
    files = {"sys/fs/cgroup/cpu.max": text}
    assert cpu_quota(machine("0::/", V2.format(mounted="/"), **files)) == quota


def test_the_smallest_quota_on_the_way_up_counts(machine) -> None:
    files = {
        "sys/fs/cgroup/a.slice/cpu.max": "200000 100000",
        "sys/fs/cgroup/a.slice/b.service/cpu.max": "max 100000",
    }
    root = machine("0::/a.slice/b.service", V2.format(mounted="/"), **files)
    assert cpu_quota(root) == 2
    assert num_cpus(root) == min(2, len(os.sched_getaffinity(0)))


@pytest.mark.parametrize(("text", "quota"), [("50000", 0.5), ("-1", None)])
def test_version_1_where_the_path_is_the_hosts(machine, text, quota) -> None:
    folder = "sys/fs/cgroup/cpu,cpuacct"
    files = {f"{folder}/cpu.cfs_quota_us": text, f"{folder}/cpu.cfs_period_us": "100000"}
    cgroup = "4:memory:/docker/abc\n1:cpu,cpuacct:/docker/abc\n0::/docker/abc"
    root = machine(cgroup, f"{TMPFS}\n{V1.format(mounted='/docker/abc')}", **files)
    assert cpu_quota(root) == quota
    assert num_cpus(root) == (1 if quota else len(os.sched_getaffinity(0)))


def test_without_cgroups_the_affinity_counts(tmp_path) -> None:
    assert cpu_quota(tmp_path) is None
    assert num_cpus(tmp_path) == len(os.sched_getaffinity(0))
