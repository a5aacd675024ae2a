"""Calls -> OpenTelemetry spans: one for the request, one below it for each stage. Off unless an endpoint is set.

Nothing of it is in the way of a request: spans are made of what was written down, once the answer has gone.
"""

from collections.abc import Mapping

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

from service.context import RequestContext


class _OneId(RandomIdGenerator):
    """The id that the call already has, which its log lines and problems have said."""

    trace_id = 0

    def generate_trace_id(self) -> int:
        return self.trace_id


class Tracing:
    """Sends spans to a collector, in a thread of its own. To be called from one thread."""

    def __init__(self, endpoint: str, share: float) -> None:
        """endpoint: URL of OTLP over HTTP; share: of the calls, where the caller has not decided."""
        self._ids = _OneId()
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(share)),
            resource=Resource.create({"service.name": "vitrine"}),
            id_generator=self._ids,
        )
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
        self._tracer = self._provider.get_tracer("vitrine")

    def tell(self, call: RequestContext, name: str, end: int, attributes: Mapping[str, str | int]) -> None:
        """The spans of a call that has been answered. end: nanoseconds since 1970."""
        self._ids.trace_id = int(call.trace_id, 16)
        above = None
        if call.parent:
            flags = trace.TraceFlags(trace.TraceFlags.SAMPLED if call.sampled else trace.TraceFlags.DEFAULT)
            remote = trace.SpanContext(int(call.trace_id, 16), int(call.parent, 16), is_remote=True, trace_flags=flags)
            above = trace.set_span_in_context(trace.NonRecordingSpan(remote))
        span = self._tracer.start_span(
            name, context=above, kind=trace.SpanKind.SERVER, start_time=call.began, attributes=dict(attributes)
        )
        if span.is_recording():
            below = trace.set_span_in_context(span)
            for stage, since, until in call.stages:
                self._tracer.start_span(stage, context=below, start_time=since).end(until)
        span.end(end)

    def close(self) -> None:
        """Send what has not been sent."""
        self._provider.shutdown()
