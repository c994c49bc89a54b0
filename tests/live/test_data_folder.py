"""One process per data folder, a secret that is made once, a socket whose path is short enough."""

import os
import stat

import pytest

from live.data_folder import SECRET_BYTES, DataFolder, FolderInUse


def test_the_folder_is_private_and_locked_until_it_is_given_back(tmp_path):
    folder = DataFolder(tmp_path / "data")
    assert folder.owner() is None
    with folder:
        assert stat.S_IMODE(folder.root.stat().st_mode) == 0o700
        assert DataFolder(folder.root).owner() == os.getpid()
        with pytest.raises(FolderInUse, match=f"process {os.getpid()} "):
            DataFolder(folder.root).lock()
    assert folder.owner() is None
    with DataFolder(folder.root):
        pass


def test_a_lock_file_that_nobody_holds_does_not_lock(tmp_path):
    (tmp_path / "lock").write_text("1 some-host\n")
    with DataFolder(tmp_path) as folder:
        assert folder.lock_descriptor > 0


def test_the_secret_is_made_once_and_only_its_owner_may_read_it(tmp_path):
    folder = DataFolder(tmp_path)
    secret = folder.secret()
    assert len(secret) == SECRET_BYTES
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600
    assert DataFolder(tmp_path).secret(lambda n: b"x" * n) == secret
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]


def test_two_processes_that_make_the_secret_at_once_agree(tmp_path):
    def meanwhile(length: int) -> bytes:
        DataFolder(tmp_path).secret(lambda n: b"first".ljust(n))
        return b"second".ljust(length)

    assert DataFolder(tmp_path).secret(meanwhile).startswith(b"first")


def test_a_cut_secret_is_refused_and_kept(tmp_path):
    (tmp_path / "secret").write_bytes(b"short")
    with pytest.raises(ValueError, match="signs everybody out"):
        DataFolder(tmp_path).secret()
    assert (tmp_path / "secret").read_bytes() == b"short"
