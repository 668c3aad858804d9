//! SPDY header blocks (SPDY/3 §2.6.10): inflate, then split into names and values. Pure. Owns the one
//! inflater of a connection, which all its blocks share, and every bound on what a block may become:
//! a peer once made others allocate gigabytes with a few octets (CVE-2026-35469). Blocks that we send
//! are empty and need no compressor.

use bytes::Buf;
use flate2::{Decompress, FlushDecompress, Status};
use shim_model::limits;

/// What both sides of every connection have in common before the first block (SPDY/3 §2.6.10.1): lengths
/// and words of HTTP headers as they were usual then.
pub(super) fn dictionary() -> Vec<u8> {
    let mut text = Vec::with_capacity(1_423);
    for word in WORDS {
        let length = u32::try_from(word.len()).unwrap_or_default();
        text.extend_from_slice(&length.to_be_bytes());
        text.extend_from_slice(word.as_bytes());
    }
    text.extend_from_slice(TAIL.as_bytes());
    text
}

/// The words that stand in the dictionary with their length before them.
const WORDS: [&str; 65] = [
    "options",
    "head",
    "post",
    "put",
    "delete",
    "trace",
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "age",
    "allow",
    "authorization",
    "cache-control",
    "connection",
    "content-base",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-md5",
    "content-range",
    "content-type",
    "date",
    "etag",
    "expect",
    "expires",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "location",
    "max-forwards",
    "pragma",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "referer",
    "retry-after",
    "server",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "vary",
    "via",
    "warning",
    "www-authenticate",
    "method",
    "get",
    "status",
    "200 OK",
    "version",
    "HTTP/1.1",
    "url",
    "public",
    "set-cookie",
    "keep-alive",
    "origin",
];

/// What follows them without any length.
const TAIL: &str = "\
100101201202205206300302303304305306307402405406407408409410411412413414415416417502\
504505203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Re\
quest401 Unauthorized403 Forbidden404 Not Found500 Internal Server Error501 Not Impl\
emented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00\
:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,imag\
e/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivate\
max-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

/// A block that cannot be what a client of ours sends. The connection ends with it: the inflater's state
/// is the peer's no more.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadHeaders {
    #[error("a header block does not inflate")]
    Corrupt,
    #[error("a header block is larger than {} bytes", limits::SPDY_HEADER_BLOCK_BYTES)]
    TooLarge,
    #[error("a header block of {0} headers")]
    TooMany(u32),
    #[error("a header block ends within a header")]
    Short,
    #[error("a header block has {0} bytes after its last header")]
    Trailing(usize),
    #[error("a header's name is empty, not in lower case, or there twice")]
    Name,
}

/// Names and values of one block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Headers(Vec<(Vec<u8>, Vec<u8>)>);

impl Headers {
    /// The first value of a header, if it is text.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(known, _)| known == name.as_bytes())?;
        // Several values of one name stand in one field, with zero bytes between.
        let first = value.split(|byte| *byte == 0).next()?;
        std::str::from_utf8(first).ok()
    }
}

/// The inflater of one connection. Made with the first block: most of what a connection costs.
#[derive(Debug, Default)]
pub(crate) struct Inflater {
    zlib: Option<Box<Decompress>>,
}

impl Inflater {
    /// Takes the next block of the connection.
    pub(crate) fn block(&mut self, compressed: &[u8]) -> Result<Headers, BadHeaders> {
        let zlib = self.zlib.get_or_insert_with(|| Box::new(Decompress::new(true)));
        parse(&inflate(zlib, compressed)?)
    }
}

fn inflate(zlib: &mut Decompress, mut input: &[u8]) -> Result<Vec<u8>, BadHeaders> {
    let mut out = Vec::new();
    let mut piece = [0u8; 1 << 10];
    loop {
        let (before_in, before_out) = (zlib.total_in(), zlib.total_out());
        let step = zlib.decompress(input, &mut piece, FlushDecompress::Sync);
        let read = usize::try_from(zlib.total_in().wrapping_sub(before_in)).unwrap_or(usize::MAX);
        let made = usize::try_from(zlib.total_out().wrapping_sub(before_out)).unwrap_or(usize::MAX);
        input = input.get(read..).ok_or(BadHeaders::Corrupt)?;
        out.extend_from_slice(piece.get(..made).ok_or(BadHeaders::Corrupt)?);
        if out.len() > limits::SPDY_HEADER_BLOCK_BYTES {
            return Err(BadHeaders::TooLarge);
        }
        match step {
            Ok(Status::Ok | Status::BufError) if input.is_empty() && made < piece.len() => {
                return Ok(out);
            }
            Ok(Status::Ok | Status::BufError) if read == 0 && made == 0 => {
                return Err(BadHeaders::Corrupt);
            }
            Ok(Status::Ok | Status::BufError) => {}
            Err(error) if error.needs_dictionary().is_some() => {
                zlib.set_dictionary(&dictionary()).map_err(|_other| BadHeaders::Corrupt)?;
            }
            // A stream of ours never ends, whatever a client says in it.
            Ok(Status::StreamEnd) | Err(_) => return Err(BadHeaders::Corrupt),
        }
    }
}

fn parse(mut block: &[u8]) -> Result<Headers, BadHeaders> {
    let count = number(&mut block)?;
    let many = usize::try_from(count).unwrap_or(usize::MAX);
    if many > limits::SPDY_HEADERS {
        return Err(BadHeaders::TooMany(count));
    }
    let mut headers: Vec<(Vec<u8>, Vec<u8>)> = Vec::with_capacity(many);
    for _ in 0..many {
        let name = field(&mut block)?;
        let value = field(&mut block)?;
        let twice = headers.iter().any(|(known, _)| *known == name);
        if twice || name.is_empty() || name.iter().any(u8::is_ascii_uppercase) {
            return Err(BadHeaders::Name);
        }
        headers.push((name, value));
    }
    if block.is_empty() { Ok(Headers(headers)) } else { Err(BadHeaders::Trailing(block.len())) }
}

fn field(block: &mut &[u8]) -> Result<Vec<u8>, BadHeaders> {
    let length = usize::try_from(number(block)?).unwrap_or(usize::MAX);
    let (field, rest) = block.split_at_checked(length).ok_or(BadHeaders::Short)?;
    *block = rest;
    Ok(field.to_vec())
}

fn number(block: &mut &[u8]) -> Result<u32, BadHeaders> {
    block.try_get_u32().map_err(|_short| BadHeaders::Short)
}

/// The empty block that every reply of ours carries: a zlib stream of stored bytes (RFC 1951 §3.2.4),
/// one run with the count 0 and one empty run that makes the reader hand it out. The stream's two bytes
/// of head (RFC 1950: no dictionary) stand before the first block only.
pub(super) fn empty_block(first: bool) -> &'static [u8] {
    const FIRST: &[u8] = &[0x78, 0x01, 0, 4, 0, 0xfb, 0xff, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
    const LATER: &[u8] = &[0, 4, 0, 0xfb, 0xff, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
    if first { FIRST } else { LATER }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::{BadHeaders, Inflater, dictionary, empty_block};
    use flate2::{Compress, Compression, FlushCompress};
    use proptest::prelude::*;
    use shim_model::limits;

    /// What a client has: the compressor of one connection.
    pub(crate) struct Deflater(Compress);

    impl Deflater {
        pub(crate) fn new() -> Self {
            let mut zlib = Compress::new(Compression::best(), true);
            // SPDY/3's dictionary has this checksum in every client's stream.
            assert_eq!(zlib.set_dictionary(&dictionary()).unwrap(), 0xe3c6_a7c2);
            Self(zlib)
        }

        pub(crate) fn raw(&mut self, block: &[u8]) -> Vec<u8> {
            let mut out = Vec::with_capacity(block.len() + 1_024);
            self.0.compress_vec(block, &mut out, FlushCompress::Sync).unwrap();
            out
        }

        pub(crate) fn block(&mut self, headers: &[(&str, &str)]) -> Vec<u8> {
            self.raw(&plain(headers))
        }
    }

    pub(crate) fn plain(headers: &[(&str, &str)]) -> Vec<u8> {
        let number = |n: usize| u32::try_from(n).unwrap().to_be_bytes();
        let mut block = number(headers.len()).to_vec();
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            block.extend(number(text.len()));
            block.extend(text.as_bytes());
        }
        block
    }

    /// What the first block of a client becomes.
    fn check(block: &[u8]) -> Result<super::Headers, BadHeaders> {
        Inflater::default().block(&Deflater::new().raw(block))
    }

    #[test]
    fn blocks_of_one_connection_share_their_inflater() {
        let (mut client, mut server) = (Deflater::new(), Inflater::default());
        let first = client.block(&[("streamtype", "data"), ("port", "80"), ("requestid", "0")]);
        assert_eq!(server.block(&first).unwrap().get("port"), Some("80"));
        for id in 1..200 {
            let id = id.to_string();
            let block =
                client.block(&[("streamtype", "error"), ("port", "80"), ("requestid", &id)]);
            assert!(block.len() < first.len(), "what was said before is referred to");
            let headers = server.block(&block).unwrap();
            assert_eq!(headers.get("requestid"), Some(id.as_str()));
            assert_eq!(headers.get("streamtype"), Some("error"));
            assert_eq!(headers.get("port "), None);
        }
    }

    #[test]
    fn the_first_of_several_values_counts() {
        assert_eq!(check(&plain(&[("port", "1\u{0}2")])).unwrap().get("port"), Some("1"));
    }

    #[test]
    fn our_empty_blocks_are_blocks() {
        let mut reader = Inflater::default();
        for first in [true, false, false] {
            assert_eq!(reader.block(empty_block(first)), Ok(super::Headers::default()));
        }
    }

    #[test]
    fn what_no_client_sends_is_refused() {
        let many: Vec<String> = (0..=limits::SPDY_HEADERS).map(|n| format!("h{n}")).collect();
        let many: Vec<(&str, &str)> = many.iter().map(|name| (name.as_str(), "")).collect();
        assert!(check(&plain(&many[1..])).is_ok());
        let wrong = [
            (plain(&many), BadHeaders::TooMany(65)),
            (u32::MAX.to_be_bytes().to_vec(), BadHeaders::TooMany(u32::MAX)),
            (vec![0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff], BadHeaders::Short),
            (vec![0, 0], BadHeaders::Short),
            (Vec::new(), BadHeaders::Short),
            (plain(&[("Port", "1")]), BadHeaders::Name),
            (plain(&[("", "1")]), BadHeaders::Name),
            (plain(&[("a", "1"), ("a", "2")]), BadHeaders::Name),
            ([plain(&[]), vec![7]].concat(), BadHeaders::Trailing(1)),
            (vec![0; limits::SPDY_HEADER_BLOCK_BYTES + 1], BadHeaders::TooLarge),
            (vec![0; 64 << 20], BadHeaders::TooLarge),
        ];
        for (block, refusal) in wrong {
            assert_eq!(check(&block), Err(refusal));
        }
    }

    #[test]
    fn a_block_may_be_as_large_as_the_bound() {
        let name = "x".repeat(limits::SPDY_HEADER_BLOCK_BYTES - 4 - 8);
        assert!(check(&plain(&[(name.as_str(), "")])).is_ok());
        assert_eq!(check(&plain(&[(name.as_str(), "y")])), Err(BadHeaders::TooLarge));
    }

    #[test]
    fn streams_that_end_or_have_another_dictionary_are_refused() {
        let mut ended = Vec::with_capacity(100);
        let mut zlib = Compress::new(Compression::fast(), true);
        zlib.compress_vec(&plain(&[]), &mut ended, FlushCompress::Finish).unwrap();
        assert_eq!(Inflater::default().block(&ended), Err(BadHeaders::Corrupt));
        let mut other = Vec::with_capacity(100);
        let mut zlib = Compress::new(Compression::fast(), true);
        zlib.set_dictionary(b"another").unwrap();
        zlib.compress_vec(&plain(&[]), &mut other, FlushCompress::Sync).unwrap();
        assert_eq!(Inflater::default().block(&other), Err(BadHeaders::Corrupt));
    }

    proptest! {
        #[test]
        fn any_octets_are_a_block_or_refused(blocks: Vec<Vec<u8>>) {
            let mut inflater = Inflater::default();
            for block in blocks {
                drop(inflater.block(&block));
            }
        }

        #[test]
        fn any_inflated_octets_are_headers_or_refused(block: Vec<u8>) {
            drop(check(&block));
        }

        #[test]
        fn headers_come_back(pairs in proptest::collection::btree_map("[a-z]{1,9}", "[ -~]{0,40}", 0..20)) {
            let pairs: Vec<(&str, &str)> = pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            let headers = check(&plain(&pairs)).unwrap();
            for (name, value) in pairs {
                prop_assert_eq!(headers.get(name), Some(value));
            }
        }
    }
}
