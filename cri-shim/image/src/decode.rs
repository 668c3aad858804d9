//! Compressed layers to tar streams: gzip, zstd, plain, behind one reader. What a layer is, its first
//! bytes say; the media type must agree. Bytes after the end of the compressed stream are an error.

use crate::error::ImageError;
use shim_model::limits;
use std::io::{BufReader, Read};

const BUFFER: usize = 128 << 10;

/// How a layer is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    Plain,
    /// RFC 1952; several members are one stream.
    Gzip,
    /// RFC 8878.
    Zstd,
}

impl Compression {
    /// What a layer's media type says.
    pub fn of_media_type(media_type: &str) -> Result<Self, ImageError> {
        match media_type {
            "application/vnd.oci.image.layer.v1.tar"
            | "application/vnd.docker.image.rootfs.diff.tar" => Ok(Self::Plain),
            "application/vnd.oci.image.layer.v1.tar+gzip"
            | "application/vnd.docker.image.rootfs.diff.tar.gzip" => Ok(Self::Gzip),
            "application/vnd.oci.image.layer.v1.tar+zstd"
            | "application/vnd.docker.image.rootfs.diff.tar.zstd" => Ok(Self::Zstd),
            other if other.contains("foreign") || other.contains("nondistributable") => {
                Err(ImageError::Unsupported(format!(
                    "a layer of type {other} is kept outside the registry; such layers are not pulled"
                )))
            }
            other => Err(ImageError::Unsupported(format!(
                "a layer of type {other} is not known; known are tar, tar+gzip and tar+zstd"
            ))),
        }
    }

    /// What the first bytes say; archives of `docker save` have no media types.
    pub fn of_start(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            _ => Self::Plain,
        }
    }
}

/// A reader of the uncompressed stream.
pub fn decoder<'a>(
    compression: Compression,
    source: impl Read + Send + 'a,
) -> std::io::Result<Box<dyn Read + Send + 'a>> {
    let source = BufReader::with_capacity(BUFFER, source);
    Ok(match compression {
        Compression::Plain => Box::new(source),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(source)),
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(source)?;
            decoder.window_log_max(limits::ZSTD_WINDOW_LOG)?;
            Box::new(decoder)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::{Compression, decoder};
    use std::io::{Read, Write};

    fn read(compression: Compression, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
        let mut text = Vec::new();
        decoder(compression, bytes)?.read_to_end(&mut text)?;
        Ok(text)
    }

    #[test]
    fn all_forms_come_out_as_they_went_in() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(b"hello").unwrap();
        let gzip = gzip.finish().unwrap();
        assert_eq!(read(Compression::of_start(&gzip), &gzip).unwrap(), b"hello");
        let zstd = zstd::encode_all(b"hello".as_slice(), 3).unwrap();
        assert_eq!(read(Compression::of_start(&zstd), &zstd).unwrap(), b"hello");
        assert_eq!(read(Compression::of_start(b"hello"), b"hello").unwrap(), b"hello");
    }

    #[test]
    fn garbage_after_the_end_and_a_short_stream_are_errors() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&[7u8; 1000]).unwrap();
        let mut gzip = gzip.finish().unwrap();
        let short = gzip.get(..gzip.len() - 4).unwrap().to_vec();
        assert!(read(Compression::Gzip, &short).is_err());
        gzip.extend_from_slice(b"garbage");
        assert!(read(Compression::Gzip, &gzip).is_err());
    }

    #[test]
    fn unknown_and_foreign_types_are_refused_with_a_sentence() {
        for bad in ["application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "text/plain"] {
            assert!(Compression::of_media_type(bad).is_err());
        }
    }
}
