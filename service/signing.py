"""Signatures of releases: who made one can prove it, and who serves it can ask for the proof.

manifest.sig stands beside manifest.json, which names the digest of every other file:

    {"format": 1, "algorithm": "ed25519", "key": first 16 hexadecimal digits of sha256(public key), "signature": base64}

What is signed is a line that says what it is, then the bytes of manifest.json. It is verified before any file of the
release is parsed, the manifest included. (Ed25519: RFC 8032.)
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from service.errors import ReleaseUntrusted, UnsafeSettings
from service.files import write_text

SIGNATURE = "manifest.sig"
MANIFEST = "manifest.json"
CONTEXT = b"vitrine release manifest, format 1\n"
END = b"-----END PUBLIC KEY-----"
MAX_SIGNATURE = 4096  # bytes of manifest.sig


def make_key(private: Path, public: Path) -> str:
    """Write a new pair of keys as PEM files, the private one for its owner alone; returns the key's name.

    Raises FileExistsError where a file is there already."""
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    private.touch(mode=0o600, exist_ok=False)
    private.write_bytes(pem)
    with public.open("xb") as file:
        file.write(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return name_of(key.public_key())


def sign(folder: Path, private: Path) -> str:
    """Sign a release's manifest; returns the key's name. Raises UnsafeSettings where the key cannot be used."""
    key = read_key(private)
    signature = key.sign(CONTEXT + (folder / MANIFEST).read_bytes())
    said = {
        "format": 1, "algorithm": "ed25519", "key": name_of(key.public_key()),
        "signature": base64.b64encode(signature).decode(),
    }  # fmt: skip
    write_text(folder / SIGNATURE, json.dumps(said, indent=1) + "\n")
    return name_of(key.public_key())


def read_key(private: Path) -> Ed25519PrivateKey:
    """Raises UnsafeSettings where the file holds no private ed25519 key."""
    try:
        key = load_pem_private_key(private.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise UnsafeSettings(
            f"{private} holds no key that can be read ({error}); vitrine sign-key makes one"
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise UnsafeSettings(f"{private} holds no ed25519 key; vitrine sign-key makes one")
    return key


def read_trusted(path: Path | None) -> tuple[Ed25519PublicKey, ...]:
    """The public keys of a PEM file, or of the files *.pub and *.pem of a folder; none for None. Raises UnsafeSettings
    where there is none, or a file holds something else."""
    if path is None:
        return ()
    try:
        files = sorted([*path.glob("*.pub"), *path.glob("*.pem")]) if path.is_dir() else [path]
        blocks = [block + END for file in files for block in file.read_bytes().split(END)[:-1]]
        keys = [load_pem_public_key(block.lstrip()) for block in blocks]
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise UnsafeSettings(f"VITRINE_TRUSTED_KEYS: {path} cannot be read ({error})") from error
    trusted = tuple(key for key in keys if isinstance(key, Ed25519PublicKey))
    if not trusted or len(trusted) < len(keys):
        raise UnsafeSettings(f"VITRINE_TRUSTED_KEYS: {path} must hold ed25519 public keys (PEM), and no others")
    return trusted


def require_trusted(folder: Path, trusted: Sequence[Ed25519PublicKey]) -> None:
    """Refuse a release that none of these keys has signed. Without keys, nothing is asked. Raises ReleaseUntrusted."""
    if not trusted:
        return
    try:
        with (folder / SIGNATURE).open("rb") as file:
            said = json.loads(file.read(MAX_SIGNATURE))
        signature = base64.b64decode(said["signature"], validate=True)
        signed = CONTEXT + (folder / MANIFEST).read_bytes()
    except FileNotFoundError as error:
        raise ReleaseUntrusted(f"{folder} is not signed ({Path(error.filename).name} is missing), and only signed "
                               "releases are trusted here: vitrine sign RELEASE --key FILE") from error  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, binascii.Error) as error:
        raise ReleaseUntrusted(f"{folder}: {SIGNATURE} cannot be read ({error})") from error
    for key in trusted:
        try:
            key.verify(signature, signed)
            return
        except InvalidSignature:
            continue
    raise ReleaseUntrusted(
        f"{folder}: its signature (key {str(said.get('key'))[:16]}) is of none of the trusted keys "
        f"({', '.join(map(name_of, trusted))}), or the manifest has changed since"
    )


def name_of(key: Ed25519PublicKey) -> str:
    """Short, to tell keys apart."""
    return hashlib.sha256(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()[:16]
