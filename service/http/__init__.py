"""The HTTP side of the service: request and response bodies, routes, and the OpenAPI document."""
