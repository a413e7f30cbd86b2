"""What a stored file is made of: lzop around the content, and GPG around that where a key is set, as WAL-E does it."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
from pathlib import Path

from cryptopip_wale.config import Config
from cryptopip_wale.errors import WaleError

STEP_S = 60  # for one WAL segment
LZOP_MAGIC = b"\x89LZO\0\r\n\x1a\n"
_HOME = Path("/tmp/cryptopip-wale-gnupg")  # noqa: S108  # of the container alone, in memory, and 0700
# WAL-E calls gpg without options: nobody is there to be asked, and whoever set the key trusts it.
_OPTIONS = "batch\nno-tty\ntrust-model always\nno-auto-key-locate\n"


def _run(command: list[str], content: bytes, what: str) -> bytes:
    done = subprocess.run(command, input=content, capture_output=True, check=False, timeout=STEP_S)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        raise WaleError("corrupt", f"{what} ({command[0]} exit {done.returncode}): {said}")
    return done.stdout


def ensure_keys(config: Config) -> None:
    """Make gpg of this container know the keys of the key file; nothing to do where no key is set.

    The keyring lies in memory: on the disk there is the key file alone, which the role keeps.
    """
    if not config.gpg_key_id:
        return
    os.environ["GNUPGHOME"] = str(_HOME)
    try:
        keys = config.gpg_key_file.read_bytes()
    except OSError as error:
        raise WaleError("usage", f"{config.gpg_key_file}: {error.strerror}: run the wale role again") from error
    _HOME.mkdir(mode=0o700, exist_ok=True)
    imported, digest = _HOME / "imported", hashlib.sha256(keys + config.gpg_key_id.encode()).hexdigest()
    with (_HOME / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if imported.exists() and imported.read_text() == digest:
            return
        (_HOME / "gpg.conf").write_text(_OPTIONS)
        try:
            _run(["gpg", "--import"], keys, "import")
            # What could not be read again must not be written.
            _run(["gpg", "-d", "-q"], _encrypt(config, b"proof"), "decryption")
        except WaleError as error:
            raise WaleError(
                "usage",
                f"{config.gpg_key_file}, expected the secret key {config.gpg_key_id}, able to encrypt and without a "
                f"passphrase, since recovery and verification decrypt: {error}",
            ) from error
        imported.write_text(digest)


def _encrypt(config: Config, content: bytes) -> bytes:
    return _run(["gpg", "-e", "-z", "0", "-r", config.gpg_key_id], content, "encryption")


def pack(config: Config, content: bytes) -> bytes:
    """``content`` as it is stored."""
    packed = _run(["lzop", "-c"], content, "compression")
    if config.gpg_key_id:
        packed = _encrypt(config, packed)
    return packed


def unpack(packed: bytes, name: str) -> bytes:
    """The content of a stored file; raises ``corrupt`` where the checksums of lzop or gpg say so.

    What was stored before a key was set, or after it was taken away, is known by its first bytes.
    """
    if packed and not packed.startswith(LZOP_MAGIC[: len(packed)]):
        packed = _run(["gpg", "-d", "-q"], packed, f"{name} does not unpack")
    return _run(["lzop", "-dc"], packed, f"{name} does not unpack")
