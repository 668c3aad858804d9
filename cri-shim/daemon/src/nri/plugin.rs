//! One plugin: its registration, what it wants to hear, its synchronization, and asking it. One request at a
//! time, as plugins are used to. One that does not answer in time, or breaks the protocol, is sent away and
//! refuses nothing, unless it asked for something else itself (`FailurePolicy`).

use super::connection::{Asked, Connection, NoAnswer};
use super::ttrpc;
use prost::Message;
use shim_model::limits;
use shim_proto::nri_v1alpha1 as nri;
use shim_proto::nri_v1alpha1::Event;
use shim_runtime::error::RuntimeError;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};

/// Events that there are, as bits.
const ALL: i32 = (1 << 14) - 1;
/// The version of NRI that we speak.
const VERSION: &str = "v0.12.5";
/// Longest name of a plugin.
const NAME: usize = 128;

/// How long plugins may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Patience {
    /// From the connection to the registration; and for one synchronization.
    pub(crate) registration: Duration,
    /// For one request.
    pub(crate) request: Duration,
}

/// A plugin that is registered and configured.
#[derive(Debug)]
pub(super) struct Plugin {
    /// Index and name, `10-balloons`: their order is the plugins'.
    pub(super) name: String,
    pub(super) connection: Connection,
    events: i32,
    policy: nri::FailurePolicy,
    patience: Patience,
    /// One request at a time.
    turn: tokio::sync::Mutex<()>,
    /// It knows what there is; nothing new is told before.
    synced: watch::Sender<bool>,
}

/// Why a plugin is not let in.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotLetIn {
    #[error("it did not register within {0:?}")]
    Late(Duration),
    #[error("it left before it was registered")]
    Left,
    #[error("its registration: {0}")]
    Registration(String),
    #[error("its configuration")]
    Configure(#[source] NoAnswer),
    #[error("its configuration: {0}")]
    Configuration(String),
    #[error("its synchronization")]
    Synchronize(#[source] NoAnswer),
    #[error("its synchronization: {0}")]
    Synchronization(String),
}

impl Plugin {
    /// Lets a plugin register and configures it.
    pub(super) async fn register(
        socket: UnixStream,
        patience: Patience,
    ) -> Result<(Self, mpsc::Receiver<Asked>), NotLetIn> {
        let (connection, mut asks) = Connection::open(socket);
        let named = named(&connection, &mut asks);
        let named = tokio::time::timeout(patience.registration, named).await;
        let configured = match named {
            Ok(Ok(name)) => configure(&connection, patience).await.map(|reply| (name, reply)),
            Ok(Err(why)) => Err(why),
            Err(_) => Err(NotLetIn::Late(patience.registration)),
        };
        match configured {
            Ok((name, reply)) => {
                let events = if reply.events == 0 { ALL } else { reply.events };
                let policy = reply.failure_policy.unwrap_or_default();
                let (turn, synced) = (tokio::sync::Mutex::new(()), watch::Sender::new(false));
                let plugin = Self { name, connection, events, policy, patience, turn, synced };
                Ok((plugin, asks))
            }
            Err(why) => {
                connection.close();
                Err(why)
            }
        }
    }

    /// True if it wants to hear of this.
    pub(super) fn wants(&self, event: Event) -> bool {
        let bit = i32::from(event).saturating_sub(1);
        u32::try_from(bit).is_ok_and(|bit| self.events.checked_shr(bit).is_some_and(|e| e & 1 == 1))
    }

    /// Asks it; `None` if it cannot answer and nobody minds.
    pub(super) async fn ask<R: Message + Default>(
        &self,
        method: &'static str,
        request: &impl Message,
    ) -> Result<Option<R>, RuntimeError> {
        if !self.knows_all().await {
            return Ok(None);
        }
        let _turn = self.turn.lock().await;
        let payload = request.encode_to_vec();
        let answer = self.connection.call(method, payload, self.patience.request).await;
        let failed = match answer {
            Ok(bytes) => match R::decode(bytes.as_slice()) {
                Ok(reply) => return Ok(Some(reply)),
                Err(error) => {
                    self.connection.close();
                    format!("its answer is none: {error}")
                }
            },
            Err(NoAnswer::Refused { message, .. }) => return Err(self.refused(method, &message)),
            Err(NoAnswer::Late(after)) => {
                if !self.policy.keep_connected {
                    self.connection.close();
                }
                NoAnswer::Late(after).to_string()
            }
            Err(NoAnswer::Gone) => NoAnswer::Gone.to_string(),
        };
        let (plugin, gone) = (&self.name, self.connection.is_closed());
        tracing::warn!(plugin, method, gone, why = failed, "a plugin does not answer");
        if self.policy.fail_request { Err(self.refused(method, &failed)) } else { Ok(None) }
    }

    /// The failure of a request because of this plugin.
    pub(super) fn refused(&self, about: &'static str, why: &str) -> RuntimeError {
        // Its text goes to whoever made the request, and to the log.
        let why: String = why.chars().take(1_000).filter(|c| !c.is_control()).collect();
        RuntimeError::Plugin { plugin: self.name.clone(), about, why }
    }

    /// Waits until it knows what there is; false if it left.
    async fn knows_all(&self) -> bool {
        if self.connection.is_closed() {
            return false;
        }
        let mut synced = self.synced.subscribe();
        let known = async { synced.wait_for(|known| *known).await.is_ok() };
        tokio::select! {
            known = known => known,
            () = self.connection.closed() => false,
        }
    }

    /// Lets it hear of what is new.
    pub(super) fn goes_on(&self) {
        self.synced.send_replace(true);
    }

    /// Tells it what there is, in as many messages as that takes; what it wants changed.
    pub(super) async fn synchronize(
        &self,
        pods: Vec<nri::PodSandbox>,
        containers: Vec<nri::Container>,
    ) -> Result<Vec<nri::ContainerUpdate>, NotLetIn> {
        let within = self.patience.registration;
        let sent = async {
            let mut parts = parts(pods, containers).into_iter().peekable();
            let mut updates = Vec::new();
            while let Some(mut part) = parts.next() {
                part.more = parts.peek().is_some();
                let answer =
                    self.connection.call("Synchronize", part.encode_to_vec(), within).await;
                let answer = answer.map_err(NotLetIn::Synchronize)?;
                let reply = nri::SynchronizeResponse::decode(answer.as_slice())
                    .map_err(|error| NotLetIn::Synchronization(error.to_string()))?;
                if part.more && (!reply.more || !reply.update.is_empty()) {
                    let why = "it does not understand that more is to come";
                    return Err(NotLetIn::Synchronization(why.to_owned()));
                }
                updates = reply.update;
            }
            Ok(updates)
        };
        let late = |_| Err(NotLetIn::Synchronize(NoAnswer::Late(within)));
        tokio::time::timeout(within, sent).await.unwrap_or_else(late)
    }
}

/// Everything, in messages that are not too long; at least one.
fn parts(
    pods: Vec<nri::PodSandbox>,
    containers: Vec<nri::Container>,
) -> Vec<nri::SynchronizeRequest> {
    let mut parts = Vec::new();
    let (mut part, mut bytes) = (nri::SynchronizeRequest::default(), 0_usize);
    let mut grown = |part: &mut nri::SynchronizeRequest, length: usize| {
        if bytes.saturating_add(length) > limits::NRI_SYNC_BYTES && bytes > 0 {
            parts.push(std::mem::take(part));
            bytes = 0;
        }
        bytes = bytes.saturating_add(length);
    };
    for pod in pods {
        grown(&mut part, pod.encoded_len());
        part.pods.push(pod);
    }
    for container in containers {
        grown(&mut part, container.encoded_len());
        part.containers.push(container);
    }
    parts.push(part);
    parts
}

/// Waits for the registration; the plugin's name.
async fn named(
    connection: &Connection,
    asks: &mut mpsc::Receiver<Asked>,
) -> Result<String, NotLetIn> {
    loop {
        let Some(Asked { stream, method, payload }) = asks.recv().await else {
            return Err(NotLetIn::Left);
        };
        if method != "RegisterPlugin" {
            let no = (ttrpc::UNIMPLEMENTED, "register first".to_owned());
            connection.answer(stream, Err(no)).await;
            continue;
        }
        let name = nri::RegisterPluginRequest::decode(payload.as_slice())
            .map_err(|error| error.to_string())
            .and_then(|request| name(&request));
        match name {
            Ok(name) => {
                connection.answer(stream, Ok(Vec::new())).await;
                return Ok(name);
            }
            Err(why) => {
                connection.answer(stream, Err((ttrpc::INVALID_ARGUMENT, why.clone()))).await;
                return Err(NotLetIn::Registration(why));
            }
        }
    }
}

fn name(request: &nri::RegisterPluginRequest) -> Result<String, String> {
    let nri::RegisterPluginRequest { plugin_name, plugin_idx, .. } = request;
    let shown =
        |text: &str| text.chars().take(NAME).flat_map(char::escape_default).collect::<String>();
    if plugin_idx.len() != 2 || !plugin_idx.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("the index \"{}\", allowed are two digits", shown(plugin_idx)));
    }
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '+');
    if plugin_name.is_empty() || plugin_name.len() > NAME || !plugin_name.chars().all(legal) {
        let name = shown(plugin_name);
        return Err(format!("the name \"{name}\", allowed are letters, digits, -, _, . and +"));
    }
    Ok(format!("{plugin_idx}-{plugin_name}"))
}

async fn configure(
    connection: &Connection,
    patience: Patience,
) -> Result<nri::ConfigureResponse, NotLetIn> {
    let millis = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    let request = nri::ConfigureRequest {
        config: String::new(),
        runtime_name: "wherry".to_owned(),
        runtime_version: env!("CARGO_PKG_VERSION").to_owned(),
        registration_timeout: millis(patience.registration),
        request_timeout: millis(patience.request),
        nri_version: VERSION.to_owned(),
    };
    let answer = connection.call("Configure", request.encode_to_vec(), patience.request).await;
    let answer = answer.map_err(NotLetIn::Configure)?;
    let reply = nri::ConfigureResponse::decode(answer.as_slice())
        .map_err(|error| NotLetIn::Configuration(error.to_string()))?;
    match reply.events & !ALL {
        0 => Ok(reply),
        more => Err(NotLetIn::Configuration(format!("it wants events {more:#x}, which are none"))),
    }
}

#[cfg(test)]
mod tests {
    use super::{name, parts};
    use prost::Message;
    use shim_model::limits;
    use shim_proto::nri_v1alpha1 as nri;

    #[test]
    fn a_plugin_is_called_by_its_index_and_name() {
        let check = |plugin_idx: &str, plugin_name: &str| {
            name(&nri::RegisterPluginRequest {
                plugin_idx: plugin_idx.into(),
                plugin_name: plugin_name.into(),
                ..Default::default()
            })
        };
        assert_eq!(check("05", "a.b-c_d+e").unwrap(), "05-a.b-c_d+e");
        for (index, bad) in [("5", "a"), ("0x", "a"), ("123", "a"), ("00", ""), ("00", "a/b")] {
            assert!(check(index, bad).unwrap_err().contains("allowed"), "{index} {bad}");
        }
        assert!(check("00", &"x".repeat(129)).is_err());
    }

    #[test]
    fn what_there_is_goes_into_messages_that_are_not_too_long() {
        assert_eq!(parts(Vec::new(), Vec::new()).len(), 1);
        let container = |index: usize| nri::Container {
            id: index.to_string(),
            env: vec!["x".repeat(1 << 20)],
            ..Default::default()
        };
        let pods = vec![nri::PodSandbox { id: "p".into(), ..Default::default() }];
        let all = parts(pods, (0..7).map(container).collect());
        assert!(all.len() > 1 && all[0].pods.len() == 1);
        assert_eq!(all.iter().map(|part| part.containers.len()).sum::<usize>(), 7);
        assert!(all.iter().all(|part| part.encoded_len() < limits::NRI_MESSAGE_BYTES));
    }
}
