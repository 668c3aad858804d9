//! Which streams of one SPDY connection are open, and which side of each has said its last word. Pure.
//! Answers for every frame what is to be done with it; a client's mistakes cost it a stream, never more
//! memory than the bound. Who reads and writes the streams is not known here.

use super::encode::Because;
use std::collections::HashMap;

/// The streams of one connection.
#[derive(Debug)]
pub(crate) struct Table {
    open: HashMap<u32, Sides>,
    /// The highest id that a client used.
    last: u32,
    most: usize,
    going: bool,
}

/// Who has ended its side. A stream with both is gone.
#[derive(Clone, Copy, Debug, Default)]
struct Sides {
    client: bool,
    server: bool,
}

/// What becomes of a new stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begin {
    /// It is in the table; who wants it decides by its headers.
    Open,
    /// The client is told so.
    Refuse(Because),
    /// After a last word nothing begins, and nothing is said about it.
    Ignore,
}

/// What becomes of data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deliver {
    /// To whoever reads the stream.
    Yes,
    /// The stream ended a moment ago: the client could not know.
    Drop,
    /// The stream never was.
    Refuse(Because),
}

impl Table {
    /// A table for at most so many streams at once.
    pub(crate) fn new(most: usize) -> Self {
        Self { open: HashMap::new(), last: 0, most, going: false }
    }

    /// How many streams are open.
    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }

    /// The highest id that a client used.
    pub(crate) fn last(&self) -> u32 {
        self.last
    }

    /// A client begins a stream: ids of clients are odd and rise (SPDY/3 §2.3.2).
    pub(crate) fn begin(&mut self, stream: u32, fin: bool) -> Begin {
        if self.going {
            return Begin::Ignore;
        }
        if stream.is_multiple_of(2) || stream <= self.last {
            return Begin::Refuse(Because::Protocol);
        }
        self.last = stream;
        if self.open.len() >= self.most {
            return Begin::Refuse(Because::Refused);
        }
        self.open.insert(stream, Sides { client: fin, server: false });
        Begin::Open
    }

    /// Data of a client.
    pub(crate) fn data(&self, stream: u32) -> Deliver {
        match self.open.get(&stream) {
            Some(Sides { client: false, .. }) => Deliver::Yes,
            Some(_) => Deliver::Refuse(Because::Protocol),
            None if stream % 2 == 1 && stream <= self.last => Deliver::Drop,
            None => Deliver::Refuse(Because::NoStream),
        }
    }

    /// The client's last word on a stream.
    pub(crate) fn client_ends(&mut self, stream: u32) {
        if let Some(sides) = self.open.get_mut(&stream) {
            sides.client = true;
            self.settle(stream);
        }
    }

    /// Our last word on a stream; `false` = it is not ours to end any more, and nothing is sent.
    pub(crate) fn server_ends(&mut self, stream: u32) -> bool {
        let ends = self.may_send(stream);
        if let Some(sides) = self.open.get_mut(&stream) {
            sides.server = true;
            self.settle(stream);
        }
        ends
    }

    /// Whether we may say something on a stream.
    pub(crate) fn may_send(&self, stream: u32) -> bool {
        self.open.get(&stream).is_some_and(|sides| !sides.server)
    }

    /// A stream ends at once; `false` = it had ended before.
    pub(crate) fn cut(&mut self, stream: u32) -> bool {
        self.open.remove(&stream).is_some()
    }

    /// Nothing begins any more.
    pub(crate) fn go_away(&mut self) {
        self.going = true;
    }

    fn settle(&mut self, stream: u32) {
        if self.open.get(&stream).is_some_and(|sides| sides.client && sides.server) {
            self.open.remove(&stream);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Because, Begin, Deliver, Table};
    use proptest::prelude::*;

    #[test]
    fn ids_are_odd_and_rise() {
        let mut table = Table::new(9);
        assert_eq!(table.begin(3, false), Begin::Open);
        for wrong in [2, 4, 1, 3] {
            assert_eq!(table.begin(wrong, false), Begin::Refuse(Because::Protocol));
        }
        assert_eq!(table.begin(0x7fff_ffff, false), Begin::Open);
        assert_eq!((table.len(), table.last()), (2, 0x7fff_ffff));
    }

    #[test]
    fn the_bound_is_on_streams_at_once() {
        let mut table = Table::new(2);
        assert_eq!(table.begin(1, false), Begin::Open);
        assert_eq!(table.begin(3, true), Begin::Open);
        assert_eq!(table.begin(5, false), Begin::Refuse(Because::Refused));
        assert!(table.server_ends(3));
        assert_eq!(table.begin(7, false), Begin::Open);
    }

    #[test]
    fn a_stream_is_gone_when_both_sides_ended() {
        let mut table = Table::new(9);
        table.begin(1, false);
        assert!(table.server_ends(1));
        assert!(!table.server_ends(1), "one last word only");
        assert_eq!((table.data(1), table.len()), (Deliver::Yes, 1));
        table.client_ends(1);
        assert_eq!((table.data(1), table.len()), (Deliver::Drop, 0));
        assert!(!table.may_send(1) && !table.cut(1));
    }

    #[test]
    fn data_after_the_clients_end_or_on_no_stream_is_refused() {
        let mut table = Table::new(9);
        table.begin(5, true);
        assert_eq!(table.data(5), Deliver::Refuse(Because::Protocol));
        assert_eq!(table.data(3), Deliver::Drop);
        assert_eq!(table.data(7), Deliver::Refuse(Because::NoStream));
        assert_eq!(table.data(4), Deliver::Refuse(Because::NoStream));
    }

    #[test]
    fn after_the_last_word_nothing_begins() {
        let mut table = Table::new(9);
        table.begin(1, false);
        table.go_away();
        assert_eq!(table.begin(3, false), Begin::Ignore);
        assert_eq!((table.data(1), table.last()), (Deliver::Yes, 1));
    }

    proptest! {
        #[test]
        fn no_sequence_of_frames_passes_the_bound(acts: Vec<(u8, u8, bool)>) {
            let mut table = Table::new(4);
            for (act, stream, flag) in acts {
                let stream = u32::from(stream % 16);
                match act % 5 {
                    0 => drop((table.begin(stream, flag), table.data(stream))),
                    1 => table.client_ends(stream),
                    2 => prop_assert_eq!(table.may_send(stream), table.server_ends(stream)),
                    3 => prop_assert!(table.cut(stream) || table.data(stream) != Deliver::Yes),
                    _ => if flag && stream == 9 { table.go_away() },
                }
                prop_assert!(table.len() <= 4);
            }
        }
    }
}
