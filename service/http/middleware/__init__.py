"""The ASGI layers around every HTTP request: API keys, limits on bodies, errors as problem+json."""
