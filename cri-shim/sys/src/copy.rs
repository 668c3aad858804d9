//! Data of one file into another on the same file system, holes kept as holes: lseek(2) with `SEEK_DATA`
//! and `SEEK_HOLE`, `copy_file_range(2)`, which shares blocks where the file system can. Owners, modes and
//! attributes are the caller's.

use crate::error::SysError;
use crate::path;
use rustix::fs::SeekFrom;
use rustix::io::Errno;
use std::os::fd::AsFd;

/// Copies `size` bytes; `to` is empty before and has that length afterwards.
pub fn data(from: impl AsFd, to: impl AsFd, size: u64) -> Result<(), SysError> {
    let mut at = 0u64;
    while at < size {
        let begin = match rustix::fs::seek(&from, SeekFrom::Data(at)) {
            Ok(begin) => begin,
            // Nothing but a hole up to the end.
            Err(Errno::NXIO) => break,
            Err(error) => return Err(failed("lseek")(error)),
        };
        let end = rustix::fs::seek(&from, SeekFrom::Hole(begin)).map_err(failed("lseek"))?;
        piece(&from, &to, begin, end.min(size))?;
        at = end;
    }
    path::set_length(to, size)
}

fn piece(from: impl AsFd, to: impl AsFd, begin: u64, end: u64) -> Result<(), SysError> {
    let (mut read, mut written) = (begin, begin);
    while read < end {
        let left = usize::try_from(end.saturating_sub(read)).unwrap_or(usize::MAX);
        let count =
            rustix::fs::copy_file_range(&from, Some(&mut read), &to, Some(&mut written), left);
        if count.map_err(failed("copy_file_range"))? == 0 {
            // It became shorter meanwhile; a layer's file does not.
            return Err(SysError::new("copy_file_range", "descriptor", nix::errno::Errno::EIO));
        }
    }
    Ok(())
}

fn failed(call: &'static str) -> impl FnOnce(Errno) -> SysError {
    SysError::rustix(call, || "descriptor")
}

#[cfg(test)]
mod tests {
    use super::data;
    use std::fs::File;
    use std::os::unix::fs::{FileExt, MetadataExt};

    #[test]
    fn content_and_holes_come_out_as_they_went_in() {
        let dir = tempfile::tempdir().unwrap();
        let [from, to] = ["from", "to"].map(|name| {
            File::options()
                .read(true)
                .write(true)
                .create_new(true)
                .open(dir.path().join(name))
                .unwrap()
        });
        from.write_at(b"first", 100).unwrap();
        from.write_at(&vec![7; 70_000], 1 << 20).unwrap();
        from.set_len(8 << 20).unwrap();
        data(&from, &to, 8 << 20).unwrap();
        let [one, two] = ["from", "to"].map(|name| std::fs::read(dir.path().join(name)).unwrap());
        assert!(one == two);
        assert!(to.metadata().unwrap().blocks() < 1_000, "{}", to.metadata().unwrap().blocks());
    }

    #[test]
    fn a_file_that_is_only_a_hole_and_an_empty_one() {
        let dir = tempfile::tempdir().unwrap();
        for size in [0, 4 << 20] {
            let from = tempfile::tempfile_in(dir.path()).unwrap();
            let to = tempfile::tempfile_in(dir.path()).unwrap();
            from.set_len(size).unwrap();
            data(&from, &to, size).unwrap();
            assert_eq!((to.metadata().unwrap().len(), to.metadata().unwrap().blocks()), (size, 0));
        }
    }
}
