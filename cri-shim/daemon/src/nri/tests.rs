//! Plugins as they come over a socket: well-behaved ones, slow ones, liars. Each is played by a few lines that
//! speak the same frames; real ones are in the suites of `tests/`.

use super::connection::{Connection, NoAnswer};
use super::plugin::{NotLetIn, Patience, Plugin};
use super::ttrpc::{Assembler, Came, Request, Response, Status};
use super::{mux, ttrpc};
use prost::Message;
use shim_model::limits;
use shim_proto::nri_v1alpha1 as nri;
use shim_proto::nri_v1alpha1::Event;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

const PATIENCE: Patience =
    Patience { registration: Duration::from_secs(20), request: Duration::from_millis(400) };

/// The other end.
struct Peer {
    socket: UnixStream,
    read: [Assembler; 2],
}

impl Peer {
    fn new(socket: UnixStream) -> Self {
        Self { socket, read: [Assembler::default(), Assembler::default()] }
    }

    /// What we say to it next; `None` once we are gone.
    async fn next(&mut self) -> Option<Came> {
        loop {
            for assembler in &mut self.read {
                if let Some(came) = assembler.take().unwrap() {
                    return Some(came);
                }
            }
            let mut header = [0; mux::HEADER];
            self.socket.read_exact(&mut header).await.ok()?;
            let (connection, length) = mux::header(header).unwrap();
            let mut frame = vec![0; length];
            self.socket.read_exact(&mut frame).await.ok()?;
            self.read[usize::try_from(connection - 1).unwrap()].feed(&frame);
        }
    }

    async fn ask(&mut self, stream: u32, method: &str, message: &impl Message) {
        let service = "nri.pkg.api.v1alpha1.Runtime".to_owned();
        let payload = message.encode_to_vec();
        let request = Request { service, method: method.into(), payload, timeout_nano: 0 };
        let bytes = ttrpc::request(stream, &request).unwrap();
        drop(self.socket.write_all(&mux::frames(mux::RUNTIME, &bytes)).await);
    }

    async fn answer(&mut self, stream: u32, response: Response) {
        let bytes = ttrpc::response(stream, &response).unwrap();
        drop(self.socket.write_all(&mux::frames(mux::PLUGIN, &bytes)).await);
    }

    async fn say(&mut self, stream: u32, message: &impl Message) {
        let payload = message.encode_to_vec();
        self.answer(stream, Response { status: None, payload }).await;
    }

    /// Registers and answers `Configure`.
    async fn join(&mut self, index: &str, configured: nri::ConfigureResponse) {
        let request = nri::RegisterPluginRequest {
            plugin_name: "test".into(),
            plugin_idx: index.into(),
            ..Default::default()
        };
        self.ask(1, "RegisterPlugin", &request).await;
        while let Some(came) = self.next().await {
            if let Came::Request { stream, request } = came {
                assert_eq!(request.method, "Configure");
                let asked = nri::ConfigureRequest::decode(request.payload.as_slice()).unwrap();
                assert_eq!((asked.runtime_name.as_str(), asked.request_timeout), ("wherry", 400));
                return self.say(stream, &configured).await;
            }
        }
    }
}

/// A plugin that was let in, and its other end.
async fn joined(configured: nri::ConfigureResponse) -> (Plugin, Peer) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut peer = Peer::new(theirs);
    let (plugin, ()) = tokio::join!(Plugin::register(ours, PATIENCE), peer.join("05", configured));
    let (plugin, asks) = plugin.unwrap();
    // Nobody answers its requests here.
    tokio::spawn(async move {
        let mut asks = asks;
        while asks.recv().await.is_some() {}
    });
    plugin.goes_on();
    (plugin, peer)
}

async fn start(plugin: &Plugin) -> Result<Option<nri::Empty>, String> {
    let request = nri::StartContainerRequest::default();
    plugin.ask("StartContainer", &request).await.map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_plugin_registers_says_what_it_wants_and_is_asked() {
    let events = (1 << 5) | (1 << 8);
    let (plugin, mut peer) = joined(nri::ConfigureResponse { events, ..Default::default() }).await;
    assert_eq!(plugin.name, "05-test");
    assert!(plugin.wants(Event::StartContainer) && plugin.wants(Event::PostUpdateContainer));
    assert!(!plugin.wants(Event::CreateContainer) && !plugin.wants(Event::Unknown));
    let serving = tokio::spawn(async move {
        while let Some(Came::Request { stream, request }) = peer.next().await {
            assert_eq!(stream % 2, 1);
            assert!(request.timeout_nano > 0);
            let no = Status { code: 2, message: "not\ntoday".into() };
            peer.answer(stream, Response { status: Some(no), payload: Vec::new() }).await;
        }
    });
    let refused = start(&plugin).await.unwrap_err();
    assert_eq!(refused, "NRI plugin 05-test, asked about StartContainer: nottoday");
    // A refusal is an answer: it stays.
    assert!(start(&plugin).await.is_err() && !plugin.connection.is_closed());
    plugin.connection.close();
    serving.await.unwrap();
}

#[tokio::test]
async fn one_that_does_not_answer_is_sent_away_and_refuses_nothing() {
    let (plugin, mut peer) = joined(nri::ConfigureResponse::default()).await;
    assert_eq!(start(&plugin).await, Ok(None));
    assert!(plugin.connection.is_closed());
    // It is told so: its end of the socket ends.
    while peer.next().await.is_some() {}
    // And from now on it costs nobody a wait.
    let begun = std::time::Instant::now();
    assert_eq!(start(&plugin).await, Ok(None));
    assert!(begun.elapsed() < PATIENCE.request);
}

#[tokio::test]
async fn a_plugin_may_choose_to_fail_requests_and_to_stay() {
    let policy = nri::FailurePolicy { fail_request: true, keep_connected: true };
    let configured = nri::ConfigureResponse { failure_policy: Some(policy), ..Default::default() };
    let (plugin, mut peer) = joined(configured).await;
    assert!(start(&plugin).await.unwrap_err().contains("did not answer"));
    assert!(!plugin.connection.is_closed());
    let Some(Came::Request { stream: late, .. }) = peer.next().await else { panic!("no request") };
    // What comes too late belongs to nobody; the next one is answered.
    let serving = tokio::spawn(async move {
        let Some(Came::Request { stream, .. }) = peer.next().await else { panic!("no request") };
        assert!(stream > late);
        peer.say(late, &nri::Empty {}).await;
        peer.say(stream, &nri::Empty {}).await;
        peer
    });
    assert_eq!(start(&plugin).await, Ok(Some(nri::Empty {})));
    drop(serving.await.unwrap());
    // One that is gone cannot stay.
    assert!(start(&plugin).await.unwrap_err().contains("not connected"));
}

/// How a plugin that says this is turned away.
async fn turned_away(say: impl AsyncFnOnce(&mut Peer)) -> NotLetIn {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut peer = Peer::new(theirs);
    let (plugin, peer) = tokio::join!(Plugin::register(ours, PATIENCE), async {
        say(&mut peer).await;
        peer
    });
    drop(peer);
    plugin.unwrap_err()
}

#[tokio::test]
async fn whoever_cannot_say_who_it_is_stays_outside() {
    let why =
        turned_away(async |peer| peer.join("5", nri::ConfigureResponse::default()).await).await;
    assert!(matches!(&why, NotLetIn::Registration(why) if why.contains("two digits")), "{why}");
    let configured = nri::ConfigureResponse { events: 1 << 20, ..Default::default() };
    let why = turned_away(async |peer| peer.join("05", configured).await).await;
    assert!(matches!(&why, NotLetIn::Configuration(why) if why.contains("0x100000")), "{why}");
    let why = turned_away(async |peer| {
        drop(peer.socket.write_all(b"GET / HTTP/1.1\r\n\r\n").await);
    });
    assert!(matches!(why.await, NotLetIn::Left));
    let why = turned_away(async |peer| peer.socket.shutdown().await.unwrap());
    assert!(matches!(why.await, NotLetIn::Left));
    let why = turned_away(async |peer| {
        peer.ask(1, "UpdateContainers", &nri::Empty {}).await;
        let Some(Came::Response { response, .. }) = peer.next().await else { panic!("no answer") };
        assert_eq!(response.status.unwrap().message, "register first");
        peer.socket.shutdown().await.unwrap();
    });
    assert!(matches!(why.await, NotLetIn::Left));
}

#[tokio::test]
async fn more_requests_than_may_wait_end_the_connection() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (connection, asks) = Connection::open(ours);
    let mut peer = Peer::new(theirs);
    for number in 0..=limits::NRI_REQUESTS {
        let stream = u32::try_from(number).unwrap() * 2 + 1;
        peer.ask(stream, "UpdateContainers", &nri::Empty {}).await;
    }
    connection.closed().await;
    drop(asks);
}

#[tokio::test]
async fn one_that_reads_nothing_does_not_hold_us() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (connection, _asks) = Connection::open(ours);
    let within = Duration::from_millis(300);
    let large = vec![0; limits::NRI_MESSAGE_BYTES - 100];
    let answer = connection.call("CreateContainer", large.clone(), within).await;
    assert_eq!(answer, Err(NoAnswer::Late(within)));
    assert!(connection.is_closed());
    assert_eq!(connection.call("CreateContainer", large, within).await, Err(NoAnswer::Gone));
    drop(theirs);
    // What is larger than the protocol allows is refused before a byte of it is sent.
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let (connection, _asks) = Connection::open(ours);
    let huge = vec![0; limits::NRI_MESSAGE_BYTES + 1];
    let answer = connection.call("CreateContainer", huge, within).await;
    assert!(matches!(answer, Err(NoAnswer::Refused { .. })) && !connection.is_closed());
}

#[tokio::test]
async fn what_there_is_comes_in_parts_and_the_last_answer_counts() {
    let (plugin, mut peer) = joined(nri::ConfigureResponse::default()).await;
    let container = |index: usize| nri::Container {
        id: index.to_string(),
        env: vec!["x".repeat(1 << 20)],
        ..Default::default()
    };
    let serving = tokio::spawn(async move {
        let mut seen = Vec::new();
        loop {
            let Some(Came::Request { stream, request }) = peer.next().await else { panic!("left") };
            let part = nri::SynchronizeRequest::decode(request.payload.as_slice()).unwrap();
            seen.extend(part.containers.into_iter().map(|one| one.id));
            let update = nri::ContainerUpdate { container_id: "3".into(), ..Default::default() };
            let update = if part.more { Vec::new() } else { vec![update] };
            peer.say(stream, &nri::SynchronizeResponse { update, more: part.more }).await;
            if !part.more {
                return seen;
            }
        }
    });
    let updates = plugin.synchronize(Vec::new(), (0..7).map(container).collect()).await.unwrap();
    assert_eq!(serving.await.unwrap(), ["0", "1", "2", "3", "4", "5", "6"]);
    assert_eq!(updates[0].container_id, "3");
}
