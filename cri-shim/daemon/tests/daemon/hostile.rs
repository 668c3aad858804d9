//! Requests that nobody sane sends, to the real daemon: arbitrary protobuf to every RPC, nesting without
//! end, messages above the limit, garbage instead of HTTP/2. Whatever the answers are, none is a bug's, and
//! the same process still answers afterwards. Needs root, because the daemon does.

use crate::running::Daemon;
use bytes::{Buf, BufMut};
use shim_proto::runtime_v1 as cri;
use shim_proto::runtime_v1::runtime_service_client::RuntimeServiceClient;
use std::io::Write;
use std::os::unix::net::UnixStream;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Code, Status};

/// Every RPC but `PullImage`, which would ask registries of the world.
const METHODS: [&str; 36] = [
    "RuntimeService/Version",
    "RuntimeService/RunPodSandbox",
    "RuntimeService/StopPodSandbox",
    "RuntimeService/RemovePodSandbox",
    "RuntimeService/PodSandboxStatus",
    "RuntimeService/ListPodSandbox",
    "RuntimeService/CreateContainer",
    "RuntimeService/StartContainer",
    "RuntimeService/StopContainer",
    "RuntimeService/RemoveContainer",
    "RuntimeService/ListContainers",
    "RuntimeService/ContainerStatus",
    "RuntimeService/UpdateContainerResources",
    "RuntimeService/ReopenContainerLog",
    "RuntimeService/ExecSync",
    "RuntimeService/Exec",
    "RuntimeService/Attach",
    "RuntimeService/PortForward",
    "RuntimeService/ContainerStats",
    "RuntimeService/ListContainerStats",
    "RuntimeService/PodSandboxStats",
    "RuntimeService/ListPodSandboxStats",
    "RuntimeService/UpdateRuntimeConfig",
    "RuntimeService/Status",
    "RuntimeService/CheckpointContainer",
    "RuntimeService/CheckpointPod",
    "RuntimeService/RestorePod",
    "RuntimeService/ListMetricDescriptors",
    "RuntimeService/ListPodSandboxMetrics",
    "RuntimeService/RuntimeConfig",
    "RuntimeService/UpdatePodSandboxResources",
    "RuntimeService/NoSuchCall",
    "ImageService/ListImages",
    "ImageService/ImageStatus",
    "ImageService/RemoveImage",
    "ImageService/ImageFsInfo",
];

#[tokio::test]
async fn root_arbitrary_messages_meet_no_bug() {
    let Some(daemon) = Daemon::start() else { return };
    let channel = daemon.channel().await;
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    for round in 0..60 {
        for method in METHODS {
            let mut message = Vec::new();
            random.message(&mut message, 5);
            if let Err(status) = raw(&channel, method, &message).await {
                let bug = status.message().contains("bug of the runtime");
                assert!(!bug, "round {round}, {method}: {message:02x?}");
            }
        }
    }
    still_answers(&daemon).await;
    // A message may have been a pod after all.
    let mut runtime = RuntimeServiceClient::new(channel);
    let pods = runtime.list_pod_sandbox(cri::ListPodSandboxRequest::default()).await;
    for pod in pods.expect("ListPodSandbox").into_inner().items {
        let request = cri::RemovePodSandboxRequest { pod_sandbox_id: pod.id };
        runtime.remove_pod_sandbox(request).await.expect("RemovePodSandbox");
    }
}

#[tokio::test]
async fn root_what_is_too_deep_or_too_large_is_refused() {
    let Some(daemon) = Daemon::start() else { return };
    let channel = daemon.channel().await;
    // Groups that nobody knows, 10,000 deep (field 1,000, wire type 3).
    let deep = [0xc3u8, 0x3e].repeat(10_000);
    let refused = raw(&channel, METHODS[1], &deep).await.expect_err("too deep");
    assert!(matches!(refused.code(), Code::Internal | Code::InvalidArgument), "{refused:?}");
    // 17 MiB in an annotation: above the 16 MiB of one request.
    let annotations = [("a".to_owned(), "x".repeat(17 << 20))].into();
    let config = cri::PodSandboxConfig { annotations, ..Default::default() };
    let request = cri::RunPodSandboxRequest { config: Some(config), ..Default::default() };
    let mut runtime = RuntimeServiceClient::new(channel.clone());
    let refused = runtime.run_pod_sandbox(request).await.expect_err("too large");
    assert!(matches!(refused.code(), Code::OutOfRange | Code::ResourceExhausted), "{refused:?}");
    // 600 KiB of annotations: above their own bound, and told by name.
    let metadata = cri::PodSandboxMetadata {
        name: "a".to_owned(),
        uid: "b".to_owned(),
        namespace: "c".to_owned(),
        attempt: u32::MAX,
    };
    let config = cri::PodSandboxConfig {
        metadata: Some(metadata),
        annotations: [("a".to_owned(), "x".repeat(600 << 10))].into(),
        ..Default::default()
    };
    let request = cri::RunPodSandboxRequest { config: Some(config), ..Default::default() };
    let refused = runtime.run_pod_sandbox(request).await.expect_err("too much");
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().starts_with("config.annotations: "), "{}", refused.message());
    still_answers(&daemon).await;
}

#[tokio::test]
async fn root_garbage_on_the_socket_ends_only_its_connection() {
    let Some(daemon) = Daemon::start() else { return };
    let mut random = Random(77);
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    for round in 0..200u32 {
        let mut garbage = if round % 2 == 0 { preface.clone() } else { Vec::new() };
        garbage.extend((0..random.below(400)).map(|_| random.octet()));
        let mut stream = UnixStream::connect(daemon.socket()).expect("a connection");
        // The daemon may hang up before everything is written.
        drop(stream.write_all(&garbage));
    }
    still_answers(&daemon).await;
}

async fn still_answers(daemon: &Daemon) {
    let mut runtime = RuntimeServiceClient::new(daemon.channel().await);
    runtime.version(cri::VersionRequest::default()).await.expect("Version");
}

/// Sends octets as a message; what comes back is not looked at.
async fn raw(
    channel: &tonic::transport::Channel,
    method: &str,
    message: &[u8],
) -> Result<(), Status> {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.expect("the daemon is gone");
    let path = format!("/runtime.v1.{method}").parse().expect("a path");
    let request = tonic::Request::new(message.to_vec());
    client.unary(request, path, Octets).await.map(|_answer| ())
}

/// Messages as they are on the wire.
#[derive(Clone, Copy)]
struct Octets;

impl Codec for Octets {
    type Encode = Vec<u8>;
    type Decode = ();
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Octets {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Octets {
    type Item = ();
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<()>, Status> {
        from.advance(from.remaining());
        Ok(Some(()))
    }
}

/// Numbers that look random and are the same in every run (xorshift64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn octet(&mut self) -> u8 {
        self.next().to_le_bytes()[3]
    }

    /// A message of a few fields, nested up to `depth`.
    fn message(&mut self, into: &mut Vec<u8>, depth: u32) {
        for _ in 0..self.below(8) {
            let field = 1 + self.below(24);
            match self.below(8) {
                0 | 1 => {
                    varint(into, field << 3);
                    let number = match self.below(3) {
                        0 => self.below(5),
                        1 => self.next(),
                        _ => u64::MAX,
                    };
                    varint(into, number);
                }
                2..=4 if depth > 0 => {
                    let mut inner = Vec::new();
                    self.message(&mut inner, depth - 1);
                    delimited(into, field, &inner);
                }
                _ => {
                    let words: [&[u8]; 9] = [
                        b"",
                        b"a",
                        b"../../etc",
                        b"/",
                        b"sha256:",
                        b"a\nb",
                        b"\0",
                        b"0-2147483647",
                        b"\xff\xfe",
                    ];
                    let chosen = self.below(9);
                    let chosen = usize::try_from(chosen).expect("small");
                    let word = words.get(chosen).copied().unwrap_or_default();
                    delimited(into, field, word);
                }
            }
        }
    }
}

fn delimited(into: &mut Vec<u8>, field: u64, content: &[u8]) {
    varint(into, field << 3 | 2);
    varint(into, content.len() as u64);
    into.extend_from_slice(content);
}

fn varint(into: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        into.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    into.push(value.to_le_bytes()[0]);
}
