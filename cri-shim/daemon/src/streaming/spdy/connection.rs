//! One SPDY connection: a reader and a writer over one socket, and nothing else that lives longer. Owns the
//! order of what is written (replies, pongs and resets before data, so that one slow stream holds nobody's
//! answer up), and the connection's deadlines. Streams are handed to whoever wants them; [`Admit`] says
//! who. Relies on the codec for every bound on what is read.

use super::encode::{self, Because, Encoder};
use super::flow::Credit;
use super::frame::{BadFrame, Decoder, Frame};
use super::headers::Headers;
use super::streams::{Begin, Deliver, Table};
use crate::streaming::channels::{Delivery, Inbound, Outbound, Outgoing, inbound, room};
use crate::streaming::pump::Appetite;
use crate::streaming::wire::{Activity, Left, put};
use bytes::{Bytes, BytesMut};
use shim_model::limits;
use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

/// Who wants which streams.
pub(crate) trait Admit: Send {
    /// What a wanted stream is.
    type Stream: Send;

    /// `None` refuses the stream.
    fn admit(&mut self, stream: u32, headers: &Headers) -> Option<Self::Stream>;

    /// Whether no stream is wanted any more.
    fn complete(&self) -> bool {
        false
    }
}

/// A stream that was wanted.
#[derive(Debug)]
pub(crate) struct Opened<T> {
    pub(crate) what: T,
    pub(crate) inbound: Inbound,
    pub(crate) outbound: Outbound,
}

/// A connection that waits to be run.
pub(crate) struct Connection<S, A: Admit> {
    reader: Reader<S, A>,
    writer: Writer<S>,
    shared: Arc<Shared>,
    idle: Duration,
}

/// What reader and writer know together.
struct Shared {
    // Locked for one question at a time, never over an await; the other lock is not held then.
    table: Mutex<Table>,
    activity: Activity,
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the reader has to say.
#[derive(Debug)]
enum Control {
    Reply(u32),
    Reset(u32, Because),
    Ping(u32),
    Window(u32, u32),
    Goodbye,
}

/// What whoever uses a connection holds.
#[derive(Debug)]
pub(crate) struct Ends<T> {
    /// Streams as the client makes them.
    pub(crate) opened: mpsc::Receiver<Opened<T>>,
    /// What is written; [`Outgoing::Last`] ends the connection.
    pub(crate) queue: mpsc::Sender<Outgoing>,
}

/// Takes a socket that speaks SPDY from its next octet on.
pub(crate) fn open<S, A>(io: S, admit: A, idle: Duration) -> (Connection<S, A>, Ends<A::Stream>)
where
    S: AsyncRead + AsyncWrite,
    A: Admit,
{
    let (read, write) = tokio::io::split(io);
    let (queue, outgoing) = crate::streaming::channels::outgoing();
    let (control, controls) = mpsc::channel(limits::STREAM_CONTROL_FRAMES);
    let (opening, opened) = mpsc::channel(limits::STREAM_CONTROL_FRAMES);
    let shared = Arc::new(Shared {
        table: Mutex::new(Table::new(limits::SPDY_STREAMS)),
        activity: Activity::now(),
    });
    let reader = Reader {
        io: read,
        decoder: Decoder::default(),
        lanes: HashMap::new(),
        credit: Credit::default(),
        room: room(),
        admit,
        control,
        opening,
        // The user of the connection decides when nothing follows, so this must not hold it open.
        queue: queue.downgrade(),
        shared: Arc::clone(&shared),
    };
    let writer = Writer {
        io: write,
        encoder: Encoder::default(),
        controls,
        outgoing,
        shared: Arc::clone(&shared),
        idle,
        asked: 0,
    };
    (Connection { reader, writer, shared, idle }, Ends { opened, queue })
}

impl<S: AsyncRead + AsyncWrite + Send, A: Admit> Connection<S, A> {
    /// Reads and writes until the client is gone, or until everything up to the last word was written and
    /// the client had its time to close.
    pub(crate) async fn run(mut self) -> Left {
        let read = self.reader.run();
        let write = self.writer.run();
        tokio::pin!(read, write);
        tokio::select! {
            left = &mut read => {
                if matches!(left, Left::Bad(_)) {
                    // It is told, if it listens.
                    drop(tokio::time::timeout(limits::STREAM_LINGER, write).await);
                }
                left
            }
            written = &mut write => match written {
                Ok(()) => {
                    // Closing while the client still sends would take back what it has not read.
                    drop(tokio::time::timeout(limits::STREAM_LINGER, read).await);
                    Left::Finished
                }
                Err(error) => Left::Broken(error),
            },
            () = self.shared.activity.idle(self.idle) => Left::Idle,
        }
    }
}

// === reading ===

struct Reader<S, A: Admit> {
    io: ReadHalf<S>,
    decoder: Decoder,
    lanes: HashMap<u32, Delivery>,
    credit: Credit,
    room: Arc<Semaphore>,
    admit: A,
    control: mpsc::Sender<Control>,
    opening: mpsc::Sender<Opened<A::Stream>>,
    queue: mpsc::WeakSender<Outgoing>,
    shared: Arc<Shared>,
}

impl<S: AsyncRead, A: Admit> Reader<S, A> {
    async fn run(&mut self) -> Left {
        let mut appetite = Appetite::default();
        loop {
            match self.frames().await {
                Ok(false) => {}
                Ok(true) => return Left::Closed,
                Err(bad) => {
                    self.say(Control::Goodbye).await;
                    return Left::Bad(bad.to_string());
                }
            }
            appetite.prepare(self.decoder.space());
            match self.io.read_buf(self.decoder.space()).await {
                Ok(0) => return Left::Closed,
                Ok(read) => appetite.learn(read),
                Err(error) => return Left::Broken(error),
            }
        }
    }

    /// Every whole frame that was read; `true` = the client says goodbye.
    async fn frames(&mut self) -> Result<bool, BadFrame> {
        while let Some(frame) = self.decoder.frame()? {
            if !matches!(frame, Frame::Ping(id) if id % 2 == 0) {
                self.shared.activity.touch();
            }
            match frame {
                Frame::SynStream { stream, fin, headers } => {
                    self.begin(stream, fin, &headers).await;
                }
                Frame::Data { stream, bytes, fin } => self.data(stream, bytes, fin).await,
                Frame::Headers { stream, fin: true } => self.end(stream),
                Frame::Reset { stream } => self.cut(stream),
                Frame::Ping(id) if id % 2 == 1 => self.say(Control::Ping(id)).await,
                Frame::Settings | Frame::WindowUpdate => self.credit.client_counts(),
                Frame::GoAway => return Ok(true),
                Frame::Headers { .. } | Frame::Ping(_) => {}
            }
        }
        Ok(false)
    }

    async fn begin(&mut self, stream: u32, fin: bool, headers: &Headers) {
        let begun = self.shared.table().begin(stream, fin);
        match begun {
            Begin::Ignore => return,
            Begin::Refuse(because) => return self.say(Control::Reset(stream, because)).await,
            Begin::Open => {}
        }
        let (Some(what), Some(queue)) = (self.admit.admit(stream, headers), self.queue.upgrade())
        else {
            self.shared.table().cut(stream);
            return self.say(Control::Reset(stream, Because::Refused)).await;
        };
        if self.admit.complete() {
            self.decoder.skip_headers();
        }
        // The reply goes first: what a client reads before it, it throws away.
        self.say(Control::Reply(stream)).await;
        let (delivery, inbound) = inbound();
        if !fin {
            self.forget_cut();
            self.lanes.insert(stream, delivery);
        }
        let opened = Opened { what, inbound, outbound: Outbound::new(stream, queue) };
        // Nobody takes streams once the session ended; the client hears that from the session.
        drop(self.opening.send(opened).await);
    }

    async fn data(&mut self, stream: u32, bytes: Bytes, fin: bool) {
        let deliver = self.shared.table().data(stream);
        match deliver {
            Deliver::Yes => {}
            Deliver::Drop => return,
            Deliver::Refuse(because) => return self.say(Control::Reset(stream, because)).await,
        }
        let length = bytes.len();
        if let Some(lane) = self.lanes.get(&stream) {
            lane.deliver(bytes, &self.room).await;
        }
        for (stream, octets) in self.credit.used(stream, length).into_iter().flatten() {
            self.say(Control::Window(stream, octets)).await;
        }
        if fin {
            self.end(stream);
        }
    }

    fn end(&mut self, stream: u32) {
        self.shared.table().client_ends(stream);
        self.lanes.remove(&stream);
        self.credit.ended(stream);
    }

    fn cut(&mut self, stream: u32) {
        self.shared.table().cut(stream);
        self.credit.ended(stream);
        if let Some(lane) = self.lanes.remove(&stream) {
            lane.reset();
        }
    }

    /// Streams that the writer cut are found here only now and then.
    fn forget_cut(&mut self) {
        let table = self.shared.table();
        if self.lanes.len() > table.len().saturating_add(limits::STREAM_CONTROL_FRAMES) {
            self.lanes.retain(|stream, _| table.data(*stream) == Deliver::Yes);
        }
    }

    /// Waits while the client does not read. After the last word nobody writes, and nothing is missed.
    async fn say(&mut self, control: Control) {
        drop(self.control.send(control).await);
    }
}

// === writing ===

struct Writer<S> {
    io: WriteHalf<S>,
    encoder: Encoder,
    controls: mpsc::Receiver<Control>,
    outgoing: mpsc::Receiver<Outgoing>,
    shared: Arc<Shared>,
    idle: Duration,
    /// The last question of ours; ids of a server are even (SPDY/3 §2.6.5).
    asked: u32,
}

impl<S: AsyncWrite> Writer<S> {
    async fn run(&mut self) -> io::Result<()> {
        let mut head = BytesMut::new();
        loop {
            let heartbeat = Instant::now().checked_add(limits::STREAM_HEARTBEAT);
            let heartbeat = heartbeat.unwrap_or_else(Instant::now);
            let mut body = Bytes::new();
            let last = tokio::select! {
                biased;
                Some(control) = self.controls.recv() => self.control(&control, &mut head),
                Some(outgoing) = self.outgoing.recv() => {
                    self.shared.activity.touch();
                    self.encode(outgoing, &mut head, &mut body)
                }
                () = tokio::time::sleep_until(heartbeat) => {
                    self.asked = self.asked.wrapping_add(2).max(2) & 0x7fff_fffe;
                    encode::ping(self.asked, &mut head);
                    false
                }
            };
            if !head.is_empty() {
                put(&mut self.io, head.split().freeze(), body, self.idle).await?;
            }
            if last {
                return tokio::time::timeout(self.idle, self.io.shutdown()).await?;
            }
        }
    }

    fn control(&mut self, control: &Control, head: &mut BytesMut) -> bool {
        match *control {
            Control::Reply(stream) => self.encoder.reply(stream, head),
            Control::Reset(stream, because) => encode::reset(stream, because, head),
            Control::Ping(id) => encode::ping(id, head),
            Control::Window(stream, octets) => encode::window_update(stream, octets, head),
            Control::Goodbye => {
                encode::go_away(self.shared.table().last(), false, head);
                return true;
            }
        }
        false
    }

    /// Writes what may still be said; `true` = nothing follows.
    fn encode(&self, outgoing: Outgoing, head: &mut BytesMut, body: &mut Bytes) -> bool {
        let mut table = self.shared.table();
        match outgoing {
            Outgoing::Data { stream, bytes } if table.may_send(stream) => {
                encode::data(stream, bytes.len(), false, head);
                *body = bytes;
            }
            Outgoing::End { stream } if table.server_ends(stream) => {
                encode::data(stream, 0, true, head);
            }
            Outgoing::Reset { stream } if table.cut(stream) => {
                encode::reset(stream, Because::Cancelled, head);
            }
            // The client gave the stream up.
            Outgoing::Data { .. } | Outgoing::End { .. } | Outgoing::Reset { .. } => {}
            Outgoing::Last => {
                table.go_away();
                encode::go_away(table.last(), true, head);
                return true;
            }
        }
        false
    }
}
