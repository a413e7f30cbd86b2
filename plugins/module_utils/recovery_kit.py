"""What of a fleet nobody could make again, in one encrypted file: packed, compared with what stands, put back."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

MANIFEST = "manifest.json"
FORMAT = 1
LABEL = "recovery_kit"
LEFT_OUT = frozenset({".git", "__pycache__"})
"""Folders whose files can be had again from elsewhere."""


class KitError(Exception):
    """A refusal or failure: what was found, what was expected, what to do; ``problems`` file by file."""

    def __init__(self, message: str, problems: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.problems = problems


@dataclass(frozen=True)
class File:
    """One file of a kit."""

    content: bytes
    is_program: bool = False

    @property
    def sha256(self) -> str:
        """Of the content, hexadecimal."""
        return hashlib.sha256(self.content).hexdigest()


Files = Mapping[str, File]
"""By their path in the kit, with slashes."""


def is_safe(name: str) -> bool:
    """Whether a path stays below the folder that it is put into."""
    path = PurePosixPath(name)
    return bool(name) and not path.is_absolute() and ".." not in path.parts and str(path) == name


def changes(before: Files, after: Files) -> dict[str, str]:
    """What makes ``after`` of ``before``, by the file's name: added, removed or changed."""
    found = {}
    for name in sorted(before.keys() | after.keys()):
        if name not in before:
            found[name] = "added"
        elif name not in after:
            found[name] = "removed"
        elif before[name] != after[name]:
            found[name] = "changed"
    return found


def listing(files: Files) -> str:
    """As a diff shows it: names and the first digits of the SHA-256, never a content."""
    return "".join(f"{name}  {file.sha256[:16]}\n" for name, file in sorted(files.items()))


def pack(files: Files) -> bytes:
    """A .tar.gz of the files, the manifest before them."""
    rows = {
        name: {"bytes": len(file.content), "sha256": file.sha256, "is_program": file.is_program}
        for name, file in sorted(files.items())
    }
    manifest = json.dumps({"format": FORMAT, "files": rows}, indent=1, sort_keys=True).encode()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, file in ((MANIFEST, File(manifest)), *sorted(files.items())):
            member = tarfile.TarInfo(name)
            member.size = len(file.content)
            member.mode = 0o700 if file.is_program else 0o600
            tar.addfile(member, io.BytesIO(file.content))
    return buffer.getvalue()


def unpack(packed: bytes) -> dict[str, File]:
    """The files of ``pack``, each compared with the manifest. Raises KitError with everything that is wrong."""
    found: dict[str, File] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as tar:
            for member in tar:
                content = tar.extractfile(member)
                if content is None or not is_safe(member.name) or member.name in found:
                    raise KitError(f"the kit holds {member.name!r}, expected a file once, by a path below the kit")
                found[member.name] = File(content.read(), is_program=bool(member.mode & 0o100))
        manifest = json.loads(found.pop(MANIFEST).content)
        wanted = manifest["files"] if manifest["format"] == FORMAT else None
    except (tarfile.TarError, OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise KitError(f"the kit is none of ours: {type(error).__name__}: {error}") from error
    if wanted is None:
        raise KitError(f"the kit is of format {manifest['format']}, expected {FORMAT}: take the release that made it")
    problems = tuple(
        f"{name}: {'missing' if name not in found else 'not in the manifest' if name not in wanted else 'damaged'}"
        for name in sorted(found.keys() | wanted.keys())
        if name not in found or name not in wanted or found[name].sha256 != wanted[name]["sha256"]
    )
    if problems:
        raise KitError(f"the kit is damaged: {', '.join(problems)}. Take another copy of it.", problems)
    return found


def collect(sources: Mapping[str, str], contents: Mapping[str, str], kit: Path) -> dict[str, File]:
    """What belongs into the kit: files and whole folders by the name they get there, and texts.

    Links are followed. Raises KitError for a source that is missing, empty, or holds the kit itself.
    """
    found = {name: File(text.encode()) for name, text in contents.items()}
    for name, place in sources.items():
        for below, path in _files_of(name, Path(place).expanduser()):
            if path.resolve() == kit.resolve():
                raise KitError(f"{kit} lies in {place}, which is packed into it: put the kit elsewhere")
            if below in found:
                raise KitError(f"{below} would be in the kit twice, the second time from {path}: rename a source")
            found[below] = File(path.read_bytes(), is_program=os.access(path, os.X_OK))
    for name in found:
        if not is_safe(name) or name == MANIFEST:
            raise KitError(f"{name!r} is no name for a file of the kit: expected a relative path, not {MANIFEST}")
    return found


def _files_of(name: str, place: Path) -> list[tuple[str, Path]]:
    if place.is_file():
        return [(name, place)]
    if not place.is_dir():
        raise KitError(f"{place} ({name}) is missing, expected a file or a folder: without it the kit is not whole")
    found: list[tuple[str, Path]] = []
    seen: set[Path] = set()
    for top, folders, files in os.walk(place, followlinks=True):
        if Path(top).resolve() in seen:
            raise KitError(f"{top} leads back to a folder above it: remove that link")
        seen.add(Path(top).resolve())
        folders[:] = sorted(folder for folder in folders if folder not in LEFT_OUT)
        for path in (Path(top, file) for file in sorted(files)):
            if not path.is_file():
                raise KitError(f"{path} is neither a file nor a folder, or a link to nothing: remove it")
            found.append((f"{name}/{path.relative_to(place).as_posix()}", path))
    if not found:
        raise KitError(f"{place} ({name}) holds no file, expected at least one: without them the kit is not whole")
    return found


def require_private(path: Path) -> None:
    """Refuse a passphrase's file that is missing, or that others may read."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        raise KitError(f"{path} is missing, expected the kit's passphrase in it: openssl rand -base64 24") from error
    if mode & 0o077:
        raise KitError(f"{path} may be read by others (mode {mode & 0o777:04o}), expected 0600: chmod 600 {path}")


def _vault(arguments: list[str], password_file: Path, given: bytes, otherwise: str) -> bytes:
    """``ansible-vault`` of the Ansible that runs us, from memory to memory: nothing plain touches a disk."""
    require_private(password_file)
    beside = Path(sys.executable).with_name("ansible-vault")
    program = str(beside) if beside.exists() else shutil.which("ansible-vault")
    if program is None:
        raise KitError(f"ansible-vault is neither beside {sys.executable} nor on PATH, expected that of Ansible")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
    argv = [program, arguments[0], "--vault-id", f"{LABEL}@{password_file}", *arguments[1:], "--output", "-", "-"]
    # In a folder without an ansible.cfg, whose vault ids would come along.
    done = subprocess.run(argv, input=given, capture_output=True, check=False, env=environment, cwd="/")
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise KitError(f"{otherwise}: {said[-1] if said else f'exit code {done.returncode}'}")
    return done.stdout


def read(path: Path, password_file: Path) -> dict[str, File]:
    """The files of a kit, all of them whole. Raises KitError."""
    try:
        sealed = path.read_bytes()
    except FileNotFoundError as error:
        raise KitError(f"{path} is missing, expected a recovery kit: make one, or fetch your copy of it") from error
    wrong = f"{path} does not open: it is damaged, or {password_file} holds another passphrase than it was made with"
    return unpack(_vault(["decrypt"], password_file, sealed, wrong))


def write(path: Path, password_file: Path, files: Files) -> None:
    """Put a kit in place of what is there, durably, once it has been read back; its owner alone may read it."""
    sealed = _vault(["encrypt", "--encrypt-vault-id", LABEL], password_file, pack(files), f"{path} was not made")
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(sealed)
            file.flush()
            os.fsync(file.fileno())
        if differing := changes(read(beside, password_file), files):
            raise KitError(f"{beside} read back otherwise than written ({', '.join(differing)}): is the disk well?")
        beside.rename(path)
    finally:
        beside.unlink(missing_ok=True)
    _sync_folder(path.parent)


def put_back(folder: Path, files: Files, *, check: bool) -> None:
    """The files of a kit into a new or empty folder, for their owner alone; with ``check`` only look at the folder."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise KitError(f"{folder} is there and not empty, expected a new folder: name another")
    if check:
        return
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, file in sorted(files.items()):
        path = folder / name
        for above in reversed(path.relative_to(folder).parents):
            (folder / above).mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o700 if file.is_program else 0o600)
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(file.content)
            opened.flush()
            os.fsync(opened.fileno())
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
