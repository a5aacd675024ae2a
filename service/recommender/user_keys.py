"""The names under which a release knows users: keyed hashes, so that no file of it holds a user id."""

import hashlib

DEFAULT_USER_KEY = "vitrine"


def hash_user(user_id: str, key: str) -> str:
    """The name under which a release knows a user: BLAKE2b keyed by the deployment's secret."""
    return hashlib.blake2b(user_id.encode(), key=_key(key), digest_size=16).hexdigest()


def hash_session(session_id: str, key: str) -> str:
    """The same for somebody who is not signed in; no session has the name of a user."""
    return hashlib.blake2b(session_id.encode(), key=_key(key), digest_size=16, person=b"session").hexdigest()


def erasure_mark(user_key: str) -> str:
    """By which a user who was erased is recognised, from what `hash_user` gives; it does not give that away."""
    return hashlib.blake2b(user_key.encode(), digest_size=16, person=b"erased").hexdigest()


def key_check(key: str) -> str:
    """A short digest by which a release tells whether it was made with this key, without giving it away."""
    return hashlib.blake2b(b"which key is this?", key=_key(key), digest_size=6).hexdigest()


def _key(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
