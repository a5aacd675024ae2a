"""What must be set before other machines may reach the service: nothing that matters is open by default."""

import ipaddress
from collections.abc import Iterable

from service.errors import UnsafeSettings
from service.recommender.user_keys import DEFAULT_USER_KEY


def require_safe(hosts: Iterable[str], *, user_key: str, has_api_key: bool, allow_anonymous: bool) -> None:
    """Refuse to listen beyond this machine with the public user key, or for anybody where nobody said so.

    hosts: addresses that the service listens on. Raises UnsafeSettings."""
    beyond = next((host for host in hosts if not is_loopback(host)), None)
    if beyond is None:
        return
    if user_key == DEFAULT_USER_KEY:
        raise UnsafeSettings(
            f"{beyond} is reachable from other machines, and VITRINE_USER_KEY is the default, which everybody knows: "
            "whoever gets the release can tell whose history is whose. Set it to a secret, for vitrine train as well; "
            "or listen on 127.0.0.1"
        )
    if not has_api_key and not allow_anonymous:
        raise UnsafeSettings(
            f"{beyond} is reachable from other machines, and there is no API key: set VITRINE_API_KEY (or "
            "VITRINE_API_KEYS), or VITRINE_ALLOW_ANONYMOUS=true where everybody who can reach it may ask"
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address. A name other than localhost may be any."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
