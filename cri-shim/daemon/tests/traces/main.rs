//! Spans of a real daemon at a collector of the test's own: the client's trace goes on in the daemon's
//! spans, and below the call stand the steps of what it made. Needs root, because the daemon does, and the
//! feature `otel`.

use data_encoding::HEXLOWER;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Span};
use shim_proto::runtime_v1 as cri;
use shim_proto::runtime_v1::runtime_service_client::RuntimeServiceClient;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tonic::transport::{Channel, Endpoint, Server};

/// Takes spans, as any collector does.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<ResourceSpans>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        self.0.lock().expect("the spans").extend(request.into_inner().resource_spans);
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    /// All spans so far; each came from something that says what it is.
    fn spans(&self) -> Vec<Span> {
        let all = self.0.lock().expect("the spans").clone();
        for resource in &all {
            let attributes = resource.resource.iter().flat_map(|known| &known.attributes);
            let names: Vec<&str> = attributes.map(|known| known.key.as_str()).collect();
            assert!(names.contains(&"service.name"), "{names:?}");
        }
        let scopes = all.into_iter().flat_map(|resource| resource.scope_spans);
        scopes.flat_map(|scope| scope.spans).collect()
    }
}

/// A daemon that sends its spans to this port; ends with the test.
struct Daemon {
    child: Child,
    folder: tempfile::TempDir,
}

impl Daemon {
    fn start(port: u16) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        // Of calls without a trace none is traced, or nearly none.
        let config = format!("[traces]\nendpoint = \"http://127.0.0.1:{port}\"\nper_million = 1\n");
        std::fs::write(path("config.toml"), config).expect("a configuration");
        let mut command = Command::new(env!("CARGO_BIN_EXE_wherry"));
        command.arg("serve");
        for (flag, name) in [
            ("--config", "config.toml"),
            ("--socket", "wherry.sock"),
            ("--root", "root"),
            ("--state", "state"),
            ("--cni-conf-dir", "cni"),
        ] {
            command.arg(flag).arg(path(name));
        }
        let log = std::fs::File::create(path("log")).expect("a log");
        let daemon = Self { child: command.stderr(log).spawn().expect("the daemon"), folder };
        while std::os::unix::net::UnixStream::connect(daemon.socket()).is_err() {
            std::thread::sleep(Duration::from_millis(5));
        }
        daemon
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("wherry.sock")
    }

    async fn client(&self) -> RuntimeServiceClient<Channel> {
        let socket = self.socket();
        let connect = tower::service_fn(move |_| {
            let socket = socket.clone();
            async move { tokio::net::UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_static("http://localhost");
        let channel = endpoint.connect_with_connector(connect).await.expect("a connection");
        RuntimeServiceClient::new(channel)
    }

    fn stop(mut self) {
        let sent = Command::new("kill").arg("-TERM").arg(self.child.id().to_string()).status();
        assert!(sent.expect("kill").success());
        assert!(self.child.wait().expect("wait").success());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn node_pod() -> cri::PodSandboxConfig {
    let options = cri::NamespaceOption {
        network: cri::NamespaceMode::Node.into(),
        pid: cri::NamespaceMode::Container.into(),
        ..cri::NamespaceOption::default()
    };
    let metadata = cri::PodSandboxMetadata {
        name: "traced".into(),
        uid: "u".into(),
        namespace: "tests".into(),
        attempt: 0,
    };
    let security_context = Some(cri::LinuxSandboxSecurityContext {
        namespace_options: Some(options),
        ..cri::LinuxSandboxSecurityContext::default()
    });
    let linux = cri::LinuxPodSandboxConfig { security_context, ..Default::default() };
    cri::PodSandboxConfig { metadata: Some(metadata), linux: Some(linux), ..Default::default() }
}

/// Of the client's own trace, the span that the daemon's are to stand below.
const PARENT: &str = "00f067aa0ba902b7";

/// A request within a trace.
fn traced<T>(trace: &str, ask: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(ask);
    let header = format!("00-{trace}-{PARENT}-01").parse().expect("a header");
    request.metadata_mut().insert("traceparent", header);
    request
}

/// The only span of this name in a trace.
fn only<'a>(spans: &'a [Span], trace: &str, name: &str) -> &'a Span {
    let own = spans.iter().filter(|span| HEXLOWER.encode(&span.trace_id) == trace);
    let found: Vec<&Span> = own.filter(|span| span.name == name).collect();
    assert_eq!(found.len(), 1, "{name} in {spans:#?}");
    found.first().expect("one")
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_clients_trace_goes_on_down_to_the_steps() {
    if std::fs::metadata("/proc/self").expect("/proc").uid() != 0 {
        eprintln!("skipped: the daemon needs root");
        return;
    }
    let collector = Collector::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    let server = Server::builder().add_service(TraceServiceServer::new(collector.clone()));
    let serving = tokio::spawn(server.serve_with_incoming(incoming));
    let daemon = Daemon::start(port);
    let mut client = daemon.client().await;
    let (good, bad) = ("4bf92f3577b34da6a3ce929d0e0e4736", "5bf92f3577b34da6a3ce929d0e0e4736");
    let ask = cri::RunPodSandboxRequest { config: Some(node_pod()), ..Default::default() };
    let made = client.run_pod_sandbox(traced(good, ask)).await.expect("a pod").into_inner();
    let ask = cri::ContainerStatusRequest { container_id: "none".into(), verbose: false };
    let refused = client.container_status(traced(bad, ask)).await.expect_err("there is none");
    let remove = cri::RemovePodSandboxRequest { pod_sandbox_id: made.pod_sandbox_id };
    client.remove_pod_sandbox(remove).await.expect("its removal");
    drop(client);
    // What was not sent yet is sent at the end.
    daemon.stop();
    let spans = collector.spans();
    let whole = only(&spans, good, "/runtime.v1.RuntimeService/RunPodSandbox");
    assert_eq!(HEXLOWER.encode(&whole.parent_span_id), PARENT);
    let call = only(&spans, good, "rpc");
    assert_eq!(call.parent_span_id, whole.span_id);
    for step in ["record", "fork", "setup", "files"] {
        let step = only(&spans, good, step);
        assert_eq!(step.parent_span_id, call.span_id, "{}", step.name);
        let (begin, end) = (step.start_time_unix_nano, step.end_time_unix_nano);
        let inside = begin >= whole.start_time_unix_nano && end <= whole.end_time_unix_nano;
        assert!(inside && end >= begin, "{step:?} in {whole:?}");
    }
    // A failure is told as one, in the words that the client got.
    let failed = only(&spans, bad, "rpc").status.clone().expect("a status");
    assert_eq!((failed.code(), failed.message.as_str()), (StatusCode::Error, refused.message()));
    assert_ne!(call.status.clone().unwrap_or_default().code(), StatusCode::Error);
    // The log stays in the log.
    assert!(spans.iter().all(|span| span.events.is_empty()), "{spans:#?}");
    serving.abort();
}
