//! Tar archives as a stream of entries. Reads ustar, PAX and GNU forms; extracts nothing. Any
//! disagreement inside an archive (two sizes, a malformed record, a wrong checksum) is an error:
//! which bytes belong to which entry is never guessed.

pub mod field;
pub mod pax;
pub mod reader;
pub mod sparse;

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file; its data follows.
    File,
    /// A folder.
    Folder,
    /// A symbolic link to `link`.
    Symlink,
    /// Another name of the entry `link`.
    HardLink,
    /// A character device.
    Character(u32, u32),
    /// A block device.
    Block(u32, u32),
    /// A named pipe.
    Fifo,
    /// Anything else; its data is passed over.
    Other(u8),
}

/// Extended attributes: name and value.
pub type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// One entry without its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Name, as it stands in the archive.
    pub path: Vec<u8>,
    /// Target of a link.
    pub link: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permission bits, set-id bits among them.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Seconds and nanoseconds since the epoch.
    pub mtime: (i64, u32),
    /// Bytes of the file, holes included.
    pub size: u64,
    /// Extended attributes: name and value.
    pub xattrs: Xattrs,
    /// Where data is, if the file has holes: offset and length, ascending.
    pub pieces: Option<Vec<(u64, u64)>>,
}

/// What is wrong with an archive.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The bytes could not be had.
    #[error("read the archive")]
    Read(#[source] std::io::Error),
    /// It ends inside an entry.
    #[error("the archive ends inside {0}")]
    Short(&'static str),
    /// A field is not what it must be.
    #[error("entry {entry}: {field} is not {allowed}")]
    Field { entry: u64, field: &'static str, allowed: &'static str },
    /// Over a bound.
    #[error("entry {entry}: {what} is over the bound of {bound}")]
    Bound { entry: u64, what: &'static str, bound: u64 },
}
