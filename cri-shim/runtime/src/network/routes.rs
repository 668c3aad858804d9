//! One route socket: links, addresses and routes of the network namespace in which it was opened. Changes
//! go out in one datagram, each is acknowledged. What they mean is decided by the callers; netlink(7),
//! rtnetlink(7).

use crate::error::RuntimeError;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoKind, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkMessage,
};
use shim_sys::netlink::{Family, Netlink};
use std::io;

/// "No such device" (errno(3)): what a name without a link is answered with.
pub const NO_DEVICE: i32 = 19;
/// "File exists": the link, address or route is there already.
pub const EXISTS: i32 = 17;

/// The kernel answers a dump in datagrams of at most this size (`netlink_dump`).
const ANSWER_BYTES: usize = 32 << 10;

/// One change.
#[derive(Debug)]
pub struct Ask {
    /// What it does, for its error: "add an address".
    pub doing: &'static str,
    /// The message.
    pub message: RouteNetlinkMessage,
    /// Flags beside REQUEST and ACK.
    pub flags: u16,
    /// An errno that is as good as done.
    pub fine: Option<i32>,
}

/// A link as the kernel tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its number.
    pub index: u32,
    /// Its hardware address.
    pub mac: Vec<u8>,
    /// True for a bridge.
    pub is_bridge: bool,
    /// Set up by whoever made it.
    pub is_up: bool,
}

/// A route socket.
#[derive(Debug)]
pub struct Routes {
    socket: Netlink,
    sequence: u32,
}

/// What came back for one message.
struct Answer {
    sequence: u32,
    result: Result<(), i32>,
}

impl Routes {
    /// Opens it in the namespace of the calling thread.
    pub fn open() -> Result<Self, RuntimeError> {
        let socket =
            Netlink::open(Family::Route).map_err(RuntimeError::system("open a netlink socket"))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Makes changes in their order; the kernel goes on after one that fails, the first failure is told.
    pub fn change(&mut self, asks: Vec<Ask>) -> Result<(), RuntimeError> {
        let first = self.sequence.wrapping_add(1);
        let mut bytes = Vec::new();
        let mut told = Vec::new();
        for ask in asks {
            told.push((ask.doing, ask.fine));
            bytes.extend(self.packet(ask.message, NLM_F_REQUEST | NLM_F_ACK | ask.flags));
        }
        if told.is_empty() {
            return Ok(());
        }
        let doing = told.first().map_or("", |(doing, _)| doing);
        self.socket.send(&bytes).map_err(RuntimeError::system(doing))?;
        let mut failed = None;
        let (mut left, mut found) = (told.len(), Vec::new());
        while left > 0 {
            for answer in self.receive(doing, first, &mut found)? {
                let place =
                    usize::try_from(answer.sequence.wrapping_sub(first)).unwrap_or_default();
                let Some((doing, fine)) = told.get(place) else { continue };
                left = left.saturating_sub(1);
                if let Err(code) = answer.result
                    && *fine != Some(code)
                {
                    failed = failed.or_else(|| Some(refused(doing, code)));
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// A link by name; `None` if there is none.
    pub fn link(&mut self, name: &str) -> Result<Option<Known>, RuntimeError> {
        let doing = "look for a link";
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let packet = self.packet(RouteNetlinkMessage::GetLink(message), NLM_F_REQUEST | NLM_F_ACK);
        self.socket.send(&packet).map_err(RuntimeError::system(doing))?;
        let mut found = Vec::new();
        loop {
            let answers = self.receive(doing, self.sequence, &mut found)?;
            match answers.first().map(|answer| answer.result) {
                None => {}
                Some(Ok(())) => return Ok(found.iter().find_map(known)),
                Some(Err(NO_DEVICE)) => return Ok(None),
                Some(Err(code)) => return Err(refused(doing, code)),
            }
        }
    }

    /// Everything of a kind.
    pub fn dump(
        &mut self,
        doing: &'static str,
        message: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, RuntimeError> {
        let packet = self.packet(message, NLM_F_REQUEST | NLM_F_DUMP);
        self.socket.send(&packet).map_err(RuntimeError::system(doing))?;
        let mut found = Vec::new();
        loop {
            let answers = self.receive(doing, self.sequence, &mut found)?;
            match answers.first().map(|answer| answer.result) {
                None => {}
                Some(Ok(())) => return Ok(found),
                Some(Err(code)) => return Err(refused(doing, code)),
            }
        }
    }

    fn packet(&mut self, message: RouteNetlinkMessage, flags: u16) -> Vec<u8> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(message));
        packet.finalize();
        let mut bytes = vec![0u8; packet.buffer_len().next_multiple_of(4)];
        packet.serialize(&mut bytes);
        bytes
    }

    /// One datagram of answers to this request or a later one: messages go to `found`, ends of requests are returned.
    fn receive(
        &mut self,
        doing: &'static str,
        since: u32,
        found: &mut Vec<RouteNetlinkMessage>,
    ) -> Result<Vec<Answer>, RuntimeError> {
        let mut buffer = vec![0u8; ANSWER_BYTES];
        let length = self.socket.receive(&mut buffer).map_err(RuntimeError::system(doing))?;
        let mut rest = buffer.get(..length).unwrap_or_default();
        let mut answers = Vec::new();
        while !rest.is_empty() {
            let packet = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).map_err(|e| {
                RuntimeError::Network { doing: doing.to_owned(), why: e.to_string() }
            })?;
            let used = usize::try_from(packet.header.length).unwrap_or(usize::MAX);
            rest = rest.get(used.next_multiple_of(4)..).unwrap_or_default();
            let sequence = packet.header.sequence_number;
            // The rest of an earlier request that failed half way is nobody's any more.
            if sequence.wrapping_sub(since) > u32::MAX / 2 {
                continue;
            }
            match packet.payload {
                NetlinkPayload::Error(error) => {
                    let result = match error.code {
                        None => Ok(()),
                        Some(code) => Err(code.get().wrapping_abs()),
                    };
                    answers.push(Answer { sequence, result });
                }
                NetlinkPayload::Done(_) => answers.push(Answer { sequence, result: Ok(()) }),
                NetlinkPayload::InnerMessage(message) => found.push(message),
                _ => {}
            }
        }
        Ok(answers)
    }
}

fn refused(doing: &str, code: i32) -> RuntimeError {
    let why = io::Error::from_raw_os_error(code).to_string();
    RuntimeError::Network { doing: doing.to_owned(), why }
}

fn known(message: &RouteNetlinkMessage) -> Option<Known> {
    let RouteNetlinkMessage::NewLink(link) = message else { return None };
    let mac = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Address(bytes) => Some(bytes.clone()),
        _ => None,
    });
    let is_bridge = link.attributes.iter().any(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => {
            infos.iter().any(|info| matches!(info, LinkInfo::Kind(InfoKind::Bridge)))
        }
        _ => false,
    });
    Some(Known {
        index: link.header.index,
        mac: mac.unwrap_or_default(),
        is_bridge,
        is_up: link.header.flags.contains(LinkFlags::Up),
    })
}
