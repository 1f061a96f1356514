"""An OTLP collector: takes traces and metrics over HTTP, and prints a line of JSON for each span and each data point.

The first line is {"port": …}. Everything is decoded by OpenTelemetry's own Python package. It ends with its stdin.
"""

import http.server
import json
import sys
import threading

from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as trace

KINDS = ["unspecified", "internal", "server", "client", "producer", "consumer"]

lock = threading.Lock()


def show(line):
    with lock:
        print(json.dumps(line), flush=True)


def value(of):
    return getattr(of, of.WhichOneof("value"))


def attributes(of):
    return {attribute.key: value(attribute.value) for attribute in of}


def spans(body):
    for resource in trace.ExportTraceServiceRequest.FromString(body).resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                show({
                    "span": span.name,
                    "kind": KINDS[span.kind],
                    "trace": span.trace_id.hex(),
                    "id": span.span_id.hex(),
                    "parent": span.parent_span_id.hex() or None,
                    "links": [link.trace_id.hex() for link in span.links],
                    "ms": (span.end_time_unix_nano - span.start_time_unix_nano) / 1e6,
                    "failed": span.status.code == 2,
                    "scope": scope.scope.name,
                    "attributes": attributes(span.attributes),
                    "resource": attributes(resource.resource.attributes),
                })


def points(body):
    for resource in metrics.ExportMetricsServiceRequest.FromString(body).resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                kind = metric.WhichOneof("data")
                for point in getattr(metric, kind).data_points:
                    number = point.count if kind == "histogram" else getattr(point, point.WhichOneof("value"))
                    show({
                        "metric": metric.name,
                        "unit": metric.unit,
                        "value": number,
                        "attributes": attributes(point.attributes),
                        "resource": attributes(resource.resource.attributes),
                    })


PATHS = {
    "/v1/traces": (spans, trace.ExportTraceServiceResponse),
    "/v1/metrics": (points, metrics.ExportMetricsServiceResponse),
}


class Collector(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        take, answer = PATHS[self.path]
        if self.headers["content-type"] != "application/x-protobuf":
            raise ValueError(f"content-type {self.headers['content-type']}")
        take(self.rfile.read(int(self.headers["content-length"])))
        body = answer().SerializeToString()
        self.send_response(200)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector)
threading.Thread(target=server.serve_forever, daemon=True).start()
show({"port": server.server_port})
sys.stdin.read()
