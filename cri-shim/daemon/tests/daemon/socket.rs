//! The daemon as its clients meet it: the real program under a scratch root, a generated client, and raw
//! HTTP/2 as other libraries send it. Needs root, because the daemon does. Pods are tested elsewhere.

use crate::running::Daemon;
use shim_proto::runtime_v1 as cri;
use shim_proto::runtime_v1::image_service_client::ImageServiceClient;
use shim_proto::runtime_v1::runtime_service_client::RuntimeServiceClient;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use tonic::Code;

#[tokio::test]
async fn root_the_first_calls_of_a_kubelet_are_answered() {
    let Some(daemon) = Daemon::start() else { return };
    let mode = std::fs::metadata(daemon.socket()).expect("the socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    for folder in ["root", "state"] {
        let mode = std::fs::metadata(daemon.beside(folder)).expect(folder).permissions().mode();
        assert_eq!(mode & 0o7777, 0o700, "{folder}");
    }
    let channel = daemon.channel().await;
    let mut runtime = RuntimeServiceClient::new(channel.clone());
    let mut images = ImageServiceClient::new(channel);

    let version = runtime.version(cri::VersionRequest::default()).await.expect("Version");
    let version = version.into_inner();
    assert_eq!((version.version.as_str(), version.runtime_name.as_str()), ("0.1.0", "wherry"));
    assert_eq!(version.runtime_api_version, "v1");

    let usage = images.image_fs_info(cri::ImageFsInfoRequest {}).await.expect("ImageFsInfo");
    let usage = usage.into_inner();
    let first = usage.image_filesystems.first().expect("a file system");
    assert!(first.used_bytes.is_some() && first.timestamp > 0);
    assert!(PathBuf::from(&first.fs_id.as_ref().expect("fs_id").mountpoint).is_dir());

    let probe = runtime.pod_sandbox_stats(cri::PodSandboxStatsRequest::default()).await;
    assert_eq!(probe.expect_err("no such pod").code(), Code::NotFound);

    let config = runtime.runtime_config(cri::RuntimeConfigRequest {}).await.expect("RuntimeConfig");
    assert!(config.into_inner().linux.is_some());

    let status = runtime.status(cri::StatusRequest { verbose: true }).await.expect("Status");
    let status = status.into_inner();
    let conditions = status.status.expect("conditions").conditions;
    let of = |name: &str| conditions.iter().find(|c| c.r#type == name).expect("a condition");
    assert!(of("RuntimeReady").status);
    let network = of("NetworkReady");
    assert!(!network.status && !network.reason.is_empty() && !network.message.is_empty());
    let handlers: Vec<_> = status.runtime_handlers.iter().map(|h| h.name.as_str()).collect();
    assert_eq!(handlers, ["", "wherry"]);
    let info: serde_json::Value = serde_json::from_str(&status.info["config"]).expect("JSON");
    assert!(PathBuf::from(info["stateDir"].as_str().expect("stateDir")).is_dir());
}

#[tokio::test]
async fn root_what_is_not_there_has_the_right_code() {
    let Some(daemon) = Daemon::start() else { return };
    let channel = daemon.channel().await;
    let mut runtime = RuntimeServiceClient::new(channel.clone());
    let mut images = ImageServiceClient::new(channel.clone());
    let id = "0123456789abcdef".to_owned();

    // Stop and remove of something missing is done.
    let pod = || id.clone();
    let stop = cri::StopPodSandboxRequest { pod_sandbox_id: pod() };
    runtime.stop_pod_sandbox(stop).await.expect("StopPodSandbox");
    let remove = cri::RemovePodSandboxRequest { pod_sandbox_id: pod() };
    runtime.remove_pod_sandbox(remove).await.expect("RemovePodSandbox");
    let stop = cri::StopContainerRequest { container_id: pod(), timeout: -5 };
    runtime.stop_container(stop).await.expect("StopContainer");
    let remove = cri::RemoveContainerRequest { container_id: pod() };
    runtime.remove_container(remove).await.expect("RemoveContainer");
    let spec = || Some(cri::ImageSpec { image: "no.example/x:1".into(), ..Default::default() });
    images.remove_image(cri::RemoveImageRequest { image: spec() }).await.expect("RemoveImage");
    let found = images.image_status(cri::ImageStatusRequest { image: spec(), verbose: true }).await;
    assert!(found.expect("ImageStatus").into_inner().image.is_none());

    // A status of something missing is not.
    let status = cri::ContainerStatusRequest { container_id: pod(), verbose: false };
    let status = runtime.container_status(status).await.expect_err("missing");
    assert_eq!(status.code(), Code::NotFound);
    let status = cri::PodSandboxStatusRequest { pod_sandbox_id: pod(), verbose: false };
    let status = runtime.pod_sandbox_status(status).await.expect_err("missing");
    assert_eq!(status.code(), Code::NotFound);

    // A refusal names the field.
    let request = cri::RunPodSandboxRequest::default();
    let refused = runtime.run_pod_sandbox(request).await.expect_err("no configuration");
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().starts_with("config: "), "{}", refused.message());

    // What is not built says so with the code that clients' fall-backs look at.
    let pod = cri::CheckpointPodRequest { pod_sandbox_id: pod(), ..Default::default() };
    let checkpoint = runtime.checkpoint_pod(pod).await.expect_err("not built");
    assert_eq!(checkpoint.code(), Code::Unimplemented);
    let mut raw = tonic::client::Grpc::new(channel);
    raw.ready().await.expect("ready");
    let path = http::uri::PathAndQuery::from_static("/runtime.v1.RuntimeService/NoSuchCall");
    let codec = tonic_prost::ProstCodec::<cri::VersionRequest, cri::VersionResponse>::default();
    let request = tonic::Request::new(cri::VersionRequest::default());
    let unknown = raw.unary(request, path, codec).await.expect_err("unknown");
    assert_eq!(unknown.code(), Code::Unimplemented);
}

#[tokio::test]
async fn root_streams_without_an_end_end_with_the_daemon() {
    let Some(daemon) = Daemon::start() else { return };
    let mut client = RuntimeServiceClient::new(daemon.channel().await);
    let events = client.get_container_events(cri::GetEventsRequest {}).await.expect("events");
    daemon.signal("-TERM");
    // Cut off after the grace, it would end with an error.
    let mut events = events.into_inner();
    assert!(events.message().await.expect("an orderly end").is_none());
    drop((events, client));
    assert!(daemon.stop().success());
}

#[test]
fn root_any_authority_is_served() {
    let Some(daemon) = Daemon::start() else { return };
    let path = daemon.socket().to_string_lossy().into_owned();
    let encoded = path.replace('/', "%2F");
    // "/run/wherry/wherry.sock" in Huffman code, as grpc-go sends strings that get shorter by it.
    let huffman = data_encoding::HEXLOWER.decode(b"62cb6a63c4e5b2cf4c789cb659e9741c9d7f");
    for (value, coded) in [
        (b"localhost".to_vec(), false),
        (path.into_bytes(), false),
        (encoded.into_bytes(), false),
        (huffman.unwrap_or_default(), true),
    ] {
        for size in [usize::MAX, 1] {
            let answer = ask_version(&daemon, &value, coded, size);
            let text = String::from_utf8_lossy(&answer);
            assert!(text.contains("wherry"), "{value:?}: {text}");
        }
    }
}

/// Asks for the version in raw HTTP/2, the octets in pieces of a size; what came back until an answer
/// or a reset.
fn ask_version(daemon: &Daemon, authority: &[u8], coded: bool, size: usize) -> Vec<u8> {
    let mut stream = UnixStream::connect(daemon.socket()).expect("a connection");
    let frame = |kind: u8, flags: u8, id: u8, payload: &[u8]| {
        let length = u8::try_from(payload.len()).expect("a short frame");
        [&[0, 0, length, kind, flags, 0, 0, 0, id], payload].concat()
    };
    let string = |value: &[u8], coded: bool| {
        let length = u8::try_from(value.len()).expect("a short string");
        assert!(length < 127);
        [&[length | if coded { 0x80 } else { 0 }], value].concat()
    };
    // :method POST, :scheme http, :path, :authority, content-type, te (RFC 7541 §6).
    let block = [
        vec![0x83, 0x86, 0x44],
        string(b"/runtime.v1.RuntimeService/Version", false),
        vec![0x41],
        string(authority, coded),
        vec![0x5f],
        string(b"application/grpc", false),
        vec![0x40],
        string(b"te", false),
        string(b"trailers", false),
    ];
    let request = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        frame(4, 0, 0, b""),
        frame(1, 4, 1, &block.concat()),
        frame(0, 1, 1, &[0; 5]),
    ];
    for piece in request.concat().chunks(size.min(1 << 20)) {
        stream.write_all(piece).expect("write");
    }
    let mut answer = Vec::new();
    loop {
        let mut head = [0u8; 9];
        stream.read_exact(&mut head).expect("a frame");
        let mut payload = vec![0u8; usize::from(head[1]) << 8 | usize::from(head[2])];
        stream.read_exact(&mut payload).expect("its payload");
        answer.extend_from_slice(&payload);
        // RST_STREAM, GOAWAY, or the end of our stream.
        if matches!(head[3], 3 | 7) || (head[8] == 1 && head[4] & 1 == 1) {
            return answer;
        }
    }
}

#[test]
fn root_sigterm_ends_the_daemon_and_its_socket_cleanly() {
    let Some(daemon) = Daemon::start() else { return };
    let socket = daemon.socket();
    // An idle client must not hold the daemon back.
    let _idle = UnixStream::connect(&socket).expect("a connection");
    daemon.signal("-HUP");
    assert!(daemon.stop().success());
    assert!(!socket.exists());
}

#[test]
fn root_a_served_socket_is_not_taken_over() {
    let Some(daemon) = Daemon::start() else { return };
    let other = Command::new(env!("CARGO_BIN_EXE_wherry"))
        .arg("serve")
        .arg("--socket")
        .arg(daemon.socket())
        .arg("--root")
        .arg(daemon.beside("root2"))
        .arg("--state")
        .arg(daemon.beside("state2"))
        .output()
        .expect("a second daemon");
    assert!(!other.status.success());
    let text = String::from_utf8_lossy(&other.stderr).into_owned();
    assert!(text.contains("another daemon serves"), "{text}");
    assert!(UnixStream::connect(daemon.socket()).is_ok());
}
