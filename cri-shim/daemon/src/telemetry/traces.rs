//! Spans over OTLP: one for each call, below the trace of the client if it names one, and below it one for
//! each step of what was made. In builds with the feature `otel` and only once an endpoint is configured;
//! otherwise nothing is made, and a configured endpoint is refused. Owns the pipe to the collector.

use crate::config::telemetry::Traces;
use crate::error::DaemonError;
use shim_model::phases::Phases;
use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::registry::LookupSpan;

/// The pipe to the collector; ends with the daemon.
#[derive(Debug, Default)]
pub(crate) struct Pipe {
    #[cfg(feature = "otel")]
    provider: Option<opentelemetry_sdk::trace::SdkTracerProvider>,
}

#[cfg(feature = "otel")]
mod otel {
    use super::{DaemonError, Layer, LookupSpan, Phases, Pipe, Subscriber, Traces};
    use opentelemetry::global;
    use opentelemetry::propagation::{Extractor, TextMapPropagator};
    use opentelemetry::trace::{Span, Status, Tracer, TracerProvider};
    use opentelemetry::{Context, KeyValue};
    use opentelemetry_otlp::{SpanExporter, WithExportConfig};
    use opentelemetry_sdk::Resource;
    use opentelemetry_sdk::propagation::TraceContextPropagator;
    use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
    use shim_model::limits;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::{Duration, SystemTime};
    use tracing::Level;
    use tracing_opentelemetry::OpenTelemetrySpanExt;
    use tracing_subscriber::filter::filter_fn;

    const NAME: &str = "wherry";
    /// Somebody wants spans.
    static IS_ON: AtomicBool = AtomicBool::new(false);

    /// Opens the pipe. Call it inside the async runtime.
    pub(crate) fn open(config: &Traces) -> Result<Pipe, DaemonError> {
        let endpoint = &config.endpoint.0;
        if endpoint.is_empty() {
            return Ok(Pipe::default());
        }
        let exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint).build();
        let exporter = exporter.map_err(|error| DaemonError::Traces {
            endpoint: endpoint.clone(),
            why: error.to_string(),
        })?;
        #[expect(clippy::cast_precision_loss, reason = "at most a million")]
        let ratio = config.per_million.0 as f64 / 1_000_000.0;
        let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        let resource = Resource::builder().with_service_name(NAME).with_attribute(version).build();
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(ratio))))
            .with_resource(resource)
            .build();
        global::set_tracer_provider(provider.clone());
        IS_ON.store(true, Ordering::Relaxed);
        Ok(Pipe { provider: Some(provider) })
    }

    impl Pipe {
        /// What makes spans out of the log's spans; nothing if nobody wants them.
        pub(crate) fn layer<S: Subscriber + for<'a> LookupSpan<'a>>(
            &self,
        ) -> Option<impl Layer<S> + use<S>> {
            let tracer = self.provider.as_ref()?.tracer(NAME);
            let layer = tracing_opentelemetry::layer().with_tracer(tracer);
            let layer = layer.with_location(false).with_threads(false).with_target(false);
            // Lines of the log are not for the collector: they may be many, and it is not asked who reads it.
            let spans = filter_fn(|what| what.is_span() && *what.level() <= Level::INFO);
            Some(layer.with_tracked_inactivity(false).with_filter(spans))
        }

        /// Sends what is left.
        pub(crate) fn end(self) {
            if let Some(provider) = self.provider {
                let _a_dead_collector_is_told_by_its_own_log_line =
                    provider.shutdown_with_timeout(limits::TRACES_END);
            }
        }
    }

    /// Headers of a request, as propagation reads them.
    struct Headers<'a>(&'a http::HeaderMap);

    impl Extractor for Headers<'_> {
        fn get(&self, key: &str) -> Option<&str> {
            self.0.get(key)?.to_str().ok()
        }

        fn keys(&self) -> Vec<&str> {
            self.0.keys().map(http::HeaderName::as_str).collect()
        }
    }

    /// The span of a request, below the client's own.
    pub(crate) fn request(request: &http::Request<()>) -> tracing::Span {
        if !IS_ON.load(Ordering::Relaxed) {
            return tracing::Span::none();
        }
        let path = request.uri().path();
        let span = tracing::info_span!("request", otel.name = path, otel.kind = "server");
        let parent = TraceContextPropagator::new().extract(&Headers(request.headers()));
        // Without a layer there is nobody to take it.
        let _nobody = span.set_parent(parent);
        span
    }

    /// A call failed, with what its client is told.
    pub(crate) fn failed(span: &tracing::Span, message: &str) {
        if IS_ON.load(Ordering::Relaxed) {
            span.set_status(Status::error(message.to_owned()));
        }
    }

    /// One span for each step, below the present one.
    pub(crate) fn phases(phases: &Phases) {
        if IS_ON.load(Ordering::Relaxed) {
            below(&tracing::Span::current().context(), phases);
        }
    }

    fn below(parent: &Context, phases: &Phases) {
        let tracer = global::tracer(NAME);
        for step in &phases.0 {
            let begin = Duration::from_nanos(u64::try_from(step.begin).unwrap_or_default());
            let begin = SystemTime::UNIX_EPOCH + begin;
            let builder = tracer.span_builder(step.phase.shown()).with_start_time(begin);
            let mut span = tracer.build_with_context(builder, parent);
            span.end_with_timestamp(begin + Duration::from_nanos(step.took));
        }
    }
}

#[cfg(not(feature = "otel"))]
mod otel {
    use super::{DaemonError, Layer, LookupSpan, Phases, Pipe, Subscriber, Traces};

    pub(crate) fn open(config: &Traces) -> Result<Pipe, DaemonError> {
        let endpoint = config.endpoint.0.clone();
        if endpoint.is_empty() {
            return Ok(Pipe::default());
        }
        let why = "this build has no OpenTelemetry (feature otel)".to_owned();
        Err(DaemonError::Traces { endpoint, why })
    }

    impl Pipe {
        /// Nothing.
        #[expect(clippy::unused_self, reason = "as with the feature")]
        pub(crate) fn layer<S: Subscriber + for<'a> LookupSpan<'a>>(
            &self,
        ) -> Option<impl Layer<S> + use<S>> {
            None::<tracing_subscriber::layer::Identity>
        }

        /// Nothing is left.
        pub(crate) fn end(self) {
            let Self {} = self;
        }
    }

    /// None.
    pub(crate) fn request(_: &http::Request<()>) -> tracing::Span {
        tracing::Span::none()
    }

    /// Nothing.
    pub(crate) fn failed(_: &tracing::Span, _: &str) {}

    /// Nothing.
    pub(crate) fn phases(_: &Phases) {}
}

pub(crate) use otel::{failed, open, phases, request};

#[cfg(test)]
mod tests {
    use super::open;
    use crate::config::telemetry::{Endpoint, Traces};

    #[test]
    fn nothing_is_opened_unasked() {
        open(&Traces::default()).unwrap().end();
        let asked = Traces { endpoint: Endpoint("http://127.0.0.1:1".into()), ..Traces::default() };
        if cfg!(not(feature = "otel")) {
            let refused = open(&asked).unwrap_err().to_string();
            assert!(refused.contains("feature otel"), "{refused}");
        }
    }
}
