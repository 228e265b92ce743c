"""The quotas of control groups, from made-up trees as Linux and container runtimes lay them out."""

from pathlib import Path

import pytest

from batch_assets.encoders import devices
from batch_assets.encoders.control_groups import cpu_quota

V1 = "cgroup cgroup rw,cpu,cpuacct"
V2 = "cgroup2 cgroup2 rw,nsdelegate"


def process(folder: Path, cgroup: str, *mounts: tuple[str, Path, str]) -> Path:
    """A /proc/self: the groups that it is in, and (the group at the root, the folder, the kind) of what is mounted."""
    found = folder / "proc"
    found.mkdir()
    (found / "cgroup").write_text(cgroup)
    lines = [
        f"{number} 23 0:28 {root} {str(place).replace(' ', chr(92) + '040')} rw,relatime shared:9 - {kind}\n"
        for number, (root, place, kind) in enumerate(mounts, start=32)
    ]
    (found / "mountinfo").write_text("22 1 8:1 / / rw - ext4 /dev/sda rw\n" + "".join(lines))
    return found


def version_1(group: Path, quota: int, period: int = 100_000) -> None:
    group.mkdir(parents=True, exist_ok=True)
    (group / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (group / "cpu.cfs_period_us").write_text(f"{period}\n")


def version_2(group: Path, text: str) -> None:
    group.mkdir(parents=True, exist_ok=True)
    (group / "cpu.max").write_text(text + "\n")


def test_version_1_in_a_container_that_sees_its_own_group_as_the_root_of_the_mount(tmp_path: Path) -> None:
    mount = tmp_path / "a b" / "cpu,cpuacct"
    version_1(mount, 250_000)
    shown = "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n1:cpuset:/docker/abc\n"
    assert cpu_quota(process(tmp_path, shown, ("/docker/abc", mount, V1))) == 2.5


def test_the_smallest_of_nested_groups_counts_and_one_beside_does_not(tmp_path: Path) -> None:
    mount = tmp_path / "cpu"
    version_1(mount, -1)
    version_1(mount / "kubepods", 300_000)
    version_1(mount / "kubepods" / "pod", 400_000)
    version_1(mount / "kubepods" / "pod" / "one", -1)
    version_1(mount / "kubepods" / "pod" / "other", 100_000)
    assert cpu_quota(process(tmp_path, "1:cpu:/kubepods/pod/one\n", ("/", mount, V1))) == 3


def test_version_2_nested(tmp_path: Path) -> None:
    mount = tmp_path / "cgroup"
    (mount / "system.slice").mkdir(parents=True)  # a root has no cpu.max, nor a group without the controller
    version_2(mount / "system.slice" / "run.service", "150000 50000")
    version_2(mount / "system.slice" / "run.service" / "part", "max 100000")
    shown = process(tmp_path, "0::/system.slice/run.service/part\n", ("/", mount, V2))
    assert cpu_quota(shown) == 3


def test_both_versions_mounted_the_controller_in_version_1(tmp_path: Path) -> None:
    version_1(tmp_path / "cpu" / "job", 200_000)
    (tmp_path / "unified" / "job").mkdir(parents=True)
    shown = process(
        tmp_path,
        "2:cpu:/job\n0::/job\n",
        ("/", tmp_path / "cpu", V1),
        ("/", tmp_path / "memory", "cgroup cgroup rw,memory"),
        ("/", tmp_path / "unified", V2),
    )
    assert cpu_quota(shown) == 2


@pytest.mark.parametrize("path", ["/../../other", "/elsewhere", "/docker/abcdef"])
def test_a_group_outside_of_the_mount_is_bounded_by_what_is_mounted(tmp_path: Path, path: str) -> None:
    version_2(tmp_path / "cgroup", "400000 100000")
    assert cpu_quota(process(tmp_path, f"0::{path}\n", ("/docker/abc", tmp_path / "cgroup", V2))) == 4


@pytest.mark.parametrize("text", ["max 100000", "", "100000 0", "all of it"])
def test_no_bound(tmp_path: Path, text: str) -> None:
    version_2(tmp_path / "cgroup", text)
    assert cpu_quota(process(tmp_path, "0::/\n", ("/", tmp_path / "cgroup", V2))) is None
    assert cpu_quota(tmp_path / "no proc") is None


@pytest.mark.parametrize(("quota", "cores"), [(150_000, 1), (10_000, 1), (100_000_000, None), (-1, None)])
def test_the_cores_of_this_process_are_bounded_by_its_quota(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: int, cores: int | None
) -> None:
    uncached = devices.available_cores.__wrapped__
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    version_1(tmp_path / "cpu", quota)
    shown = process(tmp_path, "1:cpu:/\n", ("/", tmp_path / "cpu", V1))
    monkeypatch.setattr(devices, "cpu_quota", lambda: cpu_quota(shown))
    assert uncached() == (cores or 4)
